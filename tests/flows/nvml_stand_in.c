/* A stand-in for libnvidia-ml.so.1: two GPUs that play a steady load, with faults on demand.
 * WATTLEDGER_NVML_FAULT: "no_counter" (NOT_SUPPORTED), "no_power" (UNKNOWN), "no_driver", "none". */
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef int ret_t;
typedef struct { int index; } gpu_t;
typedef struct { unsigned int gpu, memory; } util_t;
typedef struct { unsigned long long total, free, used; } memory_t;

enum { OK = 0, NOT_SUPPORTED = 3, DRIVER_NOT_LOADED = 9, UNKNOWN = 999 };
static gpu_t gpus[2] = {{0}, {1}};

static int fault(const char *name) {
    const char *said = getenv("WATTLEDGER_NVML_FAULT");
    return said && strcmp(said, name) == 0;
}
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}
static unsigned int power_mw(gpu_t *g) { return 300000 + 100000 * g->index; }

ret_t nvmlInitWithFlags(unsigned int f) { (void)f; return fault("no_driver") ? DRIVER_NOT_LOADED : OK; }
ret_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
ret_t nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(ret_t r) { return r == OK ? "Success" : "stand-in error"; }
ret_t nvmlDeviceGetCount_v2(unsigned int *n) { *n = 2; return OK; }
ret_t nvmlDeviceGetHandleByIndex_v2(unsigned int i, gpu_t **g) { *g = &gpus[i]; return OK; }
ret_t nvmlDeviceGetUUID(gpu_t *g, char *out, unsigned int n) {
    strncpy(out, g->index ? "GPU-22222222-stand-in" : "GPU-11111111-stand-in", n);
    return OK;
}
ret_t nvmlDeviceGetName(gpu_t *g, char *out, unsigned int n) {
    (void)g; strncpy(out, "NVIDIA H100 80GB HBM3", n); return OK;
}
ret_t nvmlDeviceGetPowerUsage(gpu_t *g, unsigned int *mw) {
    if (fault("no_power")) return UNKNOWN;
    *mw = power_mw(g); return OK;
}
ret_t nvmlDeviceGetTotalEnergyConsumption(gpu_t *g, unsigned long long *mj) {
    if (fault("no_counter")) return NOT_SUPPORTED;
    *mj = (unsigned long long)(now() * power_mw(g)); return OK;
}
ret_t nvmlDeviceGetUtilizationRates(gpu_t *g, util_t *u) { (void)g; u->gpu = 99; u->memory = 5; return OK; }
ret_t nvmlDeviceGetMemoryInfo(gpu_t *g, memory_t *m) {
    (void)g; m->total = 80ULL << 30; m->used = 70ULL << 30; m->free = 10ULL << 30; return OK;
}
ret_t nvmlDeviceGetTemperature(gpu_t *g, int s, unsigned int *c) { (void)g; (void)s; *c = 55; return OK; }
ret_t nvmlDeviceGetClockInfo(gpu_t *g, int k, unsigned int *mhz) { (void)g; (void)k; *mhz = 1755; return OK; }
