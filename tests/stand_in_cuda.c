/* A stand-in for libcuda.so.1: computes the kernels of dlhealth on the CPU. STAND_IN_CUDA makes it lie:
   "wrong=N" the kernel mix writes a wrong word N; "flip=N" memory changes word N after each fill;
   "who=1" the GPU is named after the user of the process; "error=CALL:CODE" each call of CALL fails; "later=N:CODE" launch N fails; "hang=CALL" CALL never returns;
   "slow=N" copies run at N MB/s; "free=N" N MiB of memory are free; "lost=N" a copy to the host changes word N. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int CUresult;
static unsigned long launches;

static const char *lie(const char *kind)
{
    const char *said = getenv("STAND_IN_CUDA");
    size_t length = strlen(kind);
    return said && !strncmp(said, kind, length) && said[length] == '=' ? said + length + 1 : NULL;
}

static CUresult answer(const char *call)
{
    const char *said = lie("hang");
    size_t length = strlen(call);
    if (said && !strcmp(said, call))
        for (;;)
            pause();
    said = lie("error");
    return said && !strncmp(said, call, length) && said[length] == ':' ? atoi(said + length + 1) : 0;
}
#define ANSWER do { CUresult r = answer(__func__); if (r) return r; } while (0)

CUresult cuInit(unsigned flags) { (void)flags; ANSWER; return 0; }
CUresult cuDriverGetVersion(int *v) { ANSWER; *v = 12020; return 0; }
CUresult cuDeviceGetCount(int *n) { ANSWER; *n = 1; return 0; }
CUresult cuDeviceGet(int *d, int i) { ANSWER; *d = i; return i ? 101 : 0; }
CUresult cuDeviceGetName(char *s, int n, int d)
{
    (void)d;
    ANSWER;
    if (lie("who"))
        snprintf(s, n, "used by UID %d and GID %d", (int)getuid(), (int)getgid());
    else
        snprintf(s, n, "stand-in on the CPU");
    return 0;
}
CUresult cuDeviceGetAttribute(int *v, int a, int d) { (void)d; ANSWER; *v = a == 75 ? 8 : 6; return 0; }
CUresult cuDeviceGetPCIBusId(char *s, int n, int d) { (void)d; ANSWER; snprintf(s, n, "0000:01:00.0"); return 0; }
CUresult cuDevicePrimaryCtxRetain(void **c, int d) { (void)d; ANSWER; *c = (void *)1; return 0; }
CUresult cuDevicePrimaryCtxRelease_v2(int d) { (void)d; ANSWER; return 0; }
CUresult cuCtxSetCurrent(void *c) { (void)c; ANSWER; return 0; }
CUresult cuCtxSynchronize(void) { ANSWER; return 0; }
CUresult cuModuleLoadData(void **m, const char *text) { ANSWER; *m = (void *)text; return strstr(text, ".version") ? 0 : 218; }
CUresult cuMemGetInfo_v2(size_t *f, size_t *t)
{
    const char *said = lie("free");
    ANSWER;
    *f = (said ? strtoul(said, NULL, 10) : 320) << 20;
    *t = 512u << 20;
    return 0;
}
CUresult cuMemAlloc_v2(uint64_t *p, size_t n) { ANSWER; *p = (uint64_t)(uintptr_t)malloc(n); return *p ? 0 : 2; }
CUresult cuMemFree_v2(uint64_t p) { ANSWER; free((void *)(uintptr_t)p); return 0; }
CUresult cuMemAllocHost_v2(void **p, size_t n) { ANSWER; *p = malloc(n); return *p ? 0 : 2; }
CUresult cuMemFreeHost(void *p) { ANSWER; free(p); return 0; }

static CUresult copy(void *to, const void *from, size_t n)
{
    const char *said = lie("slow");
    memmove(to, from, n);
    if (said)
        usleep(n / strtoul(said, NULL, 10));
    return 0;
}

CUresult cuMemcpyHtoD_v2(uint64_t d, const void *s, size_t n) { ANSWER; return copy((void *)(uintptr_t)d, s, n); }
CUresult cuMemcpyDtoD_v2(uint64_t d, uint64_t s, size_t n) { ANSWER; return copy((void *)(uintptr_t)d, (void *)(uintptr_t)s, n); }
CUresult cuMemcpyDtoH_v2(void *d, uint64_t s, size_t n)
{
    const char *said = lie("lost");
    ANSWER;
    copy(d, (void *)(uintptr_t)s, n);
    if (said && strtoul(said, NULL, 10) < n / 4)
        ((uint32_t *)d)[strtoul(said, NULL, 10)] ^= 1;
    return 0;
}

CUresult cuModuleGetFunction(void **f, void *m, const char *name)
{
    (void)m;
    ANSWER;
    *f = (void *)(uintptr_t)(strstr(name, "fill") ? 1 : strstr(name, "mix") ? 2 : strstr(name, "check") ? 3 : 0);
    return *f ? 0 : 500;
}

CUresult cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                        unsigned shared, void *stream, void **a, void **extra)
{
    uint32_t *p = (uint32_t *)(uintptr_t)*(uint64_t *)a[0];
    uint32_t n = *(uint32_t *)a[1], k = *(uint32_t *)a[2], c = *(uint32_t *)a[3];
    const char *said = lie("later");
    (void)gy, (void)gz, (void)by, (void)bz, (void)shared, (void)stream, (void)extra;
    ANSWER;
    if (said && ++launches >= strtoul(said, NULL, 10))
        return atoi(strchr(said, ':') + 1);
    if ((uint64_t)gx * bx < n)
        n = gx * bx;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t x = i;
        if (f == (void *)1) {
            p[i] = i * k + c;
        } else if (f == (void *)2) {
            for (uint32_t r = 0; r < k; r++)
                x = x * 1664525u + 1013904223u;
            p[i] = x + c;
        } else if (p[i] != i * k + c) {
            uint32_t *e = (uint32_t *)(uintptr_t)*(uint64_t *)a[4];
            e[0]++;
            if (i < e[1])
                e[1] = i;
        }
    }
    said = lie(f == (void *)2 ? "wrong" : "flip");
    if (said && f != (void *)3 && strtoul(said, NULL, 10) < n)
        p[strtoul(said, NULL, 10)] ^= 4;
    return 0;
}
