/* A stand-in for libnvidia-ml.so.1, for tests on machines without a GPU.

   The file named by the environment variable DLHEALTH_NVML_SCRIPT tells how it behaves, one line each:

     driver VERSION, nvml VERSION, cuda NUMBER     what the system calls answer (cuda 12020 is 12.2)
     device PCI CAPABILITY NAME                    one GPU, the first line is index 0; CAPABILITY like 8.6
     value CALL NUMBER, grow CALL NUMBER           what one reading of a GPU is, and how much larger each call makes it;
                                                   without "value" it is not supported
     return CALL CODE                              that call returns that error
     hang CALL, segfault CALL, nonsense CALL       that call never returns, crashes, or fills what it gives with rubbish

   Only what dlhealth calls is here. Built with: cc -shared -fPIC -Wl,-soname,libnvidia-ml.so.1; with
   -DSCRIPT='"/etc/script"' it reads that file where the variable is not set. */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef SCRIPT
#define SCRIPT "/nonexistent"
#endif
#define SUCCESS 0
#define INVALID_ARGUMENT 2
#define NOT_SUPPORTED 3
#define LIMIT 8

struct device {
  char pci[32], name[96];
  int major, minor;
};

struct pci_info {
  char bus_id_legacy[16];
  unsigned domain, bus, device, device_id, subsystem_id;
  char bus_id[32];
};

static char driver[80], nvml[80];
static int cuda, count;
static struct device devices[LIMIT];

/* Read the script for one call: what it must return. Does not come back from "hang" and "segfault". */
static int behave(const char *call, int *nonsense) {
  const char *path = getenv("DLHEALTH_NVML_SCRIPT");
  FILE *file = fopen(path ? path : SCRIPT, "r");
  char line[256], word[80];
  int code = SUCCESS, number;
  *nonsense = 0;
  count = 0;
  while (file && fgets(line, sizeof line, file)) {
    if (sscanf(line, "driver %79s", driver) == 1 || sscanf(line, "nvml %79s", nvml) == 1 ||
        sscanf(line, "cuda %d", &cuda) == 1)
      continue;
    if (count < LIMIT && sscanf(line, "device %31s %d.%d %95[^\n]", devices[count].pci, &devices[count].major,
                                &devices[count].minor, devices[count].name) == 4)
      count++;
    else if (sscanf(line, "return %79s %d", word, &number) == 2 && !strcmp(word, call))
      code = number;
    else if (sscanf(line, "nonsense %79s", word) == 1 && !strcmp(word, call))
      *nonsense = 1;
    else if (sscanf(line, "segfault %79s", word) == 1 && !strcmp(word, call))
      raise(SIGSEGV);
    else if (sscanf(line, "hang %79s", word) == 1 && !strcmp(word, call))
      for (;;)
        pause();
  }
  if (file)
    fclose(file);
  return code;
}

static int give_text(const char *call, char *out, unsigned size, const char *text) {
  int nonsense, code = behave(call, &nonsense);
  if (nonsense)
    memset(out, 0xfe, size - 1), out[size - 1] = 0;
  else if (code == SUCCESS)
    snprintf(out, size, "%s", text);
  return code;
}

static int give_number(const char *call, int *out, int *number) {
  int nonsense, code = behave(call, &nonsense);
  *out = nonsense ? -1234567 : *number;
  return code;
}

static struct device *of(void *handle) { return (struct device *)handle; }

int nvmlInitWithFlags(unsigned flags) {
  int nonsense;
  (void)flags;
  return behave("nvmlInitWithFlags", &nonsense);
}

int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int code) {
  (void)code;
  return "an error of the stand-in";
}

int nvmlSystemGetDriverVersion(char *out, unsigned size) {
  return give_text("nvmlSystemGetDriverVersion", out, size, driver);
}

int nvmlSystemGetNVMLVersion(char *out, unsigned size) {
  return give_text("nvmlSystemGetNVMLVersion", out, size, nvml);
}

int nvmlSystemGetCudaDriverVersion(int *out) { return give_number("nvmlSystemGetCudaDriverVersion", out, &cuda); }

int nvmlDeviceGetCount_v2(int *out) { return give_number("nvmlDeviceGetCount_v2", out, &count); }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
  int nonsense, code = behave("nvmlDeviceGetHandleByIndex_v2", &nonsense);
  if ((int)index >= count)
    return INVALID_ARGUMENT;
  *handle = &devices[index];
  return code;
}

int nvmlDeviceGetName(void *handle, char *out, unsigned size) {
  return give_text("nvmlDeviceGetName", out, size, of(handle)->name);
}

int nvmlDeviceGetUUID(void *handle, char *out, unsigned size) {
  return give_text("nvmlDeviceGetUUID", out, size, of(handle)->pci);
}

int nvmlDeviceGetPciInfo_v3(void *handle, struct pci_info *out) {
  memset(out, 0, sizeof *out);
  return give_text("nvmlDeviceGetPciInfo_v3", out->bus_id, sizeof out->bus_id, of(handle)->pci);
}

int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
  int nonsense, code = behave("nvmlDeviceGetCudaComputeCapability", &nonsense);
  *major = of(handle)->major;
  *minor = of(handle)->minor;
  return code;
}

int nvmlDeviceGetComputeMode(void *handle, int *mode) {
  int zero = 0;
  (void)handle;
  return give_number("nvmlDeviceGetComputeMode", mode, &zero);
}

int nvmlDeviceGetRetiredPagesPendingStatus(void *handle, int *pending) {
  int zero = 0;
  (void)handle;
  return give_number("nvmlDeviceGetRetiredPagesPendingStatus", pending, &zero);
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlDeviceGetHandleByPciBusId_v2(const char *pci, void **handle) {
  int nonsense, code = behave("nvmlDeviceGetHandleByPciBusId_v2", &nonsense);
  for (int i = 0; i < count; i++)
    if (!strcmp(devices[i].pci, pci)) {
      *handle = &devices[i];
      return code;
    }
  return INVALID_ARGUMENT;
}

static int give_reading(const char *call, unsigned long long *out) {
  const char *path = getenv("DLHEALTH_NVML_SCRIPT");
  FILE *file = fopen(path ? path : SCRIPT, "r");
  char line[256], word[80];
  unsigned long long number;
  static unsigned long long calls;
  int nonsense, found = 0, code = behave(call, &nonsense);
  while (file && fgets(line, sizeof line, file)) {
    if (sscanf(line, "value %79s %llu", word, &number) == 2 && !strcmp(word, call))
      *out = number, found = 1;
    if (sscanf(line, "grow %79s %llu", word, &number) == 2 && !strcmp(word, call))
      *out += number * calls++;
  }
  if (file)
    fclose(file);
  return code ? code : found ? SUCCESS : NOT_SUPPORTED;
}

static int give_small(const char *call, unsigned *out) {
  unsigned long long number = 0;
  int code = give_reading(call, &number);
  *out = (unsigned)number;
  return code;
}

int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *out) {
  (void)handle, (void)sensor;
  return give_small("nvmlDeviceGetTemperature", out);
}

int nvmlDeviceGetClockInfo(void *handle, int kind, unsigned *out) {
  (void)handle, (void)kind;
  return give_small("nvmlDeviceGetClockInfo", out);
}

int nvmlDeviceGetPowerUsage(void *handle, unsigned *out) {
  (void)handle;
  return give_small("nvmlDeviceGetPowerUsage", out);
}

int nvmlDeviceGetCurrPcieLinkGeneration(void *handle, unsigned *out) {
  (void)handle;
  return give_small("nvmlDeviceGetCurrPcieLinkGeneration", out);
}

int nvmlDeviceGetCurrPcieLinkWidth(void *handle, unsigned *out) {
  (void)handle;
  return give_small("nvmlDeviceGetCurrPcieLinkWidth", out);
}

int nvmlDeviceGetCurrentClocksThrottleReasons(void *handle, unsigned long long *out) {
  (void)handle;
  return give_reading("nvmlDeviceGetCurrentClocksThrottleReasons", out);
}

int nvmlDeviceGetTotalEccErrors(void *handle, int kind, int since, unsigned long long *out) {
  (void)handle, (void)since;
  return give_reading(kind ? "nvmlDeviceGetTotalEccErrors:uncorrected" : "nvmlDeviceGetTotalEccErrors:corrected", out);
}
