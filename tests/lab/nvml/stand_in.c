/* A stand-in for libnvidia-ml.so.1, for tests on machines without a GPU.

   The file named by the environment variable DLHEALTH_NVML_SCRIPT tells how it behaves, one line each:

     driver VERSION, nvml VERSION, cuda NUMBER     what the system calls answer (cuda 12020 is 12.2)
     device PCI CAPABILITY NAME                    one GPU, the first line is index 0; CAPABILITY like 8.6
     value CALL NUMBER …, grow CALL NUMBER         what one reading of each GPU is, and how much larger each call makes it;
                                                   without "value" it is not supported
     value INDEX CALL NUMBER …                     the same of one GPU. Memory errors: CALL:uncorrected, CALL:corrected-ever;
                                                   temperature limits: CALL:1 is the slowdown
     lose INDEX CALL                               from that call on, that GPU is lost
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
#define GPU_IS_LOST 15
#define LIMIT 16
#define VALUES 4

struct device {
  char pci[32], name[96];
  int major, minor, lost;
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
  return of(handle)->lost ? GPU_IS_LOST : give_text("nvmlDeviceGetName", out, size, of(handle)->name);
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

/* The numbers that the script gives for a reading of one device, and what the call must return. */
static int give_values(void *handle, const char *call, unsigned long long *out) {
  const char *path = getenv("DLHEALTH_NVML_SCRIPT");
  FILE *file;
  char line[256], word[80], plain[80];
  unsigned long long number;
  static unsigned long long calls;
  int nonsense, index, found = 0, code;
  snprintf(plain, sizeof plain, "%.*s", (int)strcspn(call, ":"), call);
  code = behave(plain, &nonsense);
  if (code != SUCCESS)
    return code;
  file = fopen(path ? path : SCRIPT, "r");
  while (file && fgets(line, sizeof line, file)) {
    if (sscanf(line, "lose %d %79s", &index, word) == 2 && handle == &devices[index] && !strcmp(word, plain))
      devices[index].lost = 1;
    if (sscanf(line, "value %79s %llu", word, &number) == 2 && !strcmp(word, call))
      found = sscanf(line, "value %*s %llu %llu %llu %llu", out, out + 1, out + 2, out + 3) > 0;
    else if (sscanf(line, "value %d %79s", &index, word) == 2 && handle == &devices[index] && !strcmp(word, call))
      found = sscanf(line, "value %*d %*s %llu %llu %llu %llu", out, out + 1, out + 2, out + 3) > 0;
    else if (sscanf(line, "grow %79s %llu", word, &number) == 2 && !strcmp(word, call))
      out[0] += number * calls++;
  }
  if (file)
    fclose(file);
  if (nonsense)
    out[0] = out[1] = out[2] = out[3] = ~0ULL;
  return of(handle)->lost ? GPU_IS_LOST : found || nonsense ? SUCCESS : NOT_SUPPORTED;
}

#define READING(CALL)                                                                                                  \
  int CALL(void *handle, unsigned *out) {                                                                              \
    unsigned long long values[VALUES] = {0};                                                                           \
    int code = give_values(handle, #CALL, values);                                                                     \
    *out = (unsigned)values[0];                                                                                        \
    return code;                                                                                                       \
  }

READING(nvmlDeviceGetPerformanceState)
READING(nvmlDeviceGetCurrPcieLinkGeneration)
READING(nvmlDeviceGetCurrPcieLinkWidth)
READING(nvmlDeviceGetMaxPcieLinkGeneration)
READING(nvmlDeviceGetMaxPcieLinkWidth)
READING(nvmlDeviceGetPowerUsage)
READING(nvmlDeviceGetEnforcedPowerLimit)
READING(nvmlDeviceGetPowerManagementDefaultLimit)
READING(nvmlDeviceGetPersistenceMode)
READING(nvmlDeviceGetMaxMigDeviceCount)

#define BITS(CALL)                                                                                                     \
  int CALL(void *handle, unsigned long long *out) {                                                                    \
    unsigned long long values[VALUES] = {0};                                                                           \
    int code = give_values(handle, #CALL, values);                                                                     \
    *out = values[0];                                                                                                  \
    return code;                                                                                                       \
  }

BITS(nvmlDeviceGetCurrentClocksThrottleReasons)
#ifndef OLD
BITS(nvmlDeviceGetCurrentClocksEventReasons)
#endif

#define PAIR(CALL)                                                                                                     \
  int CALL(void *handle, unsigned *first, unsigned *second) {                                                          \
    unsigned long long values[VALUES] = {0};                                                                           \
    int code = give_values(handle, #CALL, values);                                                                     \
    *first = (unsigned)values[0];                                                                                      \
    *second = (unsigned)values[1];                                                                                     \
    return code;                                                                                                       \
  }

PAIR(nvmlDeviceGetEccMode)
PAIR(nvmlDeviceGetMigMode)

int nvmlDeviceGetUtilizationRates(void *handle, unsigned *out) {
  unsigned long long values[VALUES] = {0};
  int code = give_values(handle, "nvmlDeviceGetUtilizationRates", values);
  out[0] = (unsigned)values[0];
  out[1] = (unsigned)values[1];
  return code;
}

int nvmlDeviceGetTemperature(void *handle, unsigned sensor, unsigned *out) {
  unsigned long long values[VALUES] = {0};
  int code = give_values(handle, "nvmlDeviceGetTemperature", values);
  (void)sensor;
  *out = (unsigned)values[0];
  return code;
}

int nvmlDeviceGetClockInfo(void *handle, unsigned kind, unsigned *out) {
  unsigned long long values[VALUES] = {0};
  int code = give_values(handle, "nvmlDeviceGetClockInfo", values);
  (void)kind;
  *out = (unsigned)values[0];
  return code;
}

int nvmlDeviceGetTemperatureThreshold(void *handle, unsigned threshold, unsigned *out) {
  unsigned long long values[VALUES] = {0};
  char call[80];
  int code;
  snprintf(call, sizeof call, "nvmlDeviceGetTemperatureThreshold:%u", threshold);
  code = give_values(handle, call, values);
  *out = (unsigned)values[0];
  return code;
}

int nvmlDeviceGetTotalEccErrors(void *handle, unsigned kind, unsigned since, unsigned long long *out) {
  unsigned long long values[VALUES] = {0};
  char call[80];
  int code;
  snprintf(call, sizeof call, "nvmlDeviceGetTotalEccErrors:%s%s", kind ? "uncorrected" : "corrected",
           since ? "-ever" : "");
  code = give_values(handle, call, values);
  *out = values[0];
  return code;
}

int nvmlDeviceGetRemappedRows(void *handle, unsigned *corrected, unsigned *uncorrected, unsigned *pending,
                              unsigned *failed) {
  unsigned long long values[VALUES] = {0};
  int code = give_values(handle, "nvmlDeviceGetRemappedRows", values);
  *corrected = (unsigned)values[0];
  *uncorrected = (unsigned)values[1];
  *pending = (unsigned)values[2];
  *failed = (unsigned)values[3];
  return code;
}

int nvmlDeviceGetRetiredPages(void *handle, unsigned cause, unsigned *count, unsigned long long *pages) {
  unsigned long long values[VALUES] = {0};
  int code = give_values(handle, "nvmlDeviceGetRetiredPages", values);
  (void)cause;
  *count = (unsigned)values[0];
  for (unsigned page = 0; pages && page < *count; page++)
    pages[page] = 4096ULL * page;
  return code;
}

struct margin {
  unsigned version;
  int degrees;
};

int nvmlDeviceGetMarginTemperature(void *handle, struct margin *out) {
  unsigned long long values[VALUES] = {0};
  int code = give_values(handle, "nvmlDeviceGetMarginTemperature", values);
  out->degrees = (int)values[0];
  return code;
}

struct fabric {
  unsigned version;
  unsigned char cluster[16];
  unsigned status, clique;
  unsigned char state;
  unsigned health;
};

int nvmlDeviceGetGpuFabricInfoV(void *handle, struct fabric *out) {
  unsigned long long values[VALUES] = {0};
  int code = give_values(handle, "nvmlDeviceGetGpuFabricInfoV", values);
  out->state = (unsigned char)values[0];
  return code;
}

/* A MIG instance has the handle of its GPU. */
int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **out) {
  unsigned long long values[VALUES] = {0};
  int code = give_values(handle, "nvmlDeviceGetMigDeviceHandleByIndex", values);
  *out = handle;
  return code != SUCCESS ? code : index < values[0] ? SUCCESS : INVALID_ARGUMENT;
}
