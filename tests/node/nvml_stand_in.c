/* A stand-in for libnvidia-ml.so.1: H100s under a steady load, GPU i at 300 + 100 i watts (modulo 4).
 *
 * WATTLEDGER_NVML_GPUS     how many (2)
 * WATTLEDGER_NVML_FAULT    faults, separated by commas
 * WATTLEDGER_NVML_CONTROL  a file that holds them instead, read at every call: faults that come and go
 *
 * no_driver      no driver is loaded             gone           it was, and is being reloaded
 * no_fields      the driver has no field values  no_instant     not that one field
 * no_counter     NOT_SUPPORTED                   no_power       UNKNOWN from every power question
 * mig            GPU 0 is cut into 4g + 2g + 1g  no_permission:N  GPU N belongs to another job
 * lost:N         GPU N fell off the bus          unknown:N      GPU N answers UNKNOWN to all
 * slow:N:MS      GPU N answers after MS ms       hang:N         GPU N does not answer
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef int ret_t;
typedef struct { int index, instance; } gpu_t;
typedef struct { unsigned int gpu, memory; } util_t;
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct {
    unsigned int id, scope;
    long long timestamp, latency;
    int type, ret;
    union { double d; unsigned int ui; unsigned long ul; unsigned long long ull; } value;
} field_t;
typedef struct {
    unsigned int sms, copy, decoders, encoders, jpeg, ofa, gpu_slices, compute_slices;
    unsigned long long memory_mib;
} attributes_t;

enum {
    OK = 0, UNINITIALIZED = 1, INVALID = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6,
    DRIVER_NOT_LOADED = 9, NO_FUNCTION = 13, GPU_IS_LOST = 15, UNKNOWN = 999
};
enum { MAX = 64 };
static gpu_t gpus[MAX];
static gpu_t parts[3];
static const unsigned int slices[3] = {4, 2, 1};
static double loaded_at;
static int was_gone;

static const char *faults(char *buffer, size_t size) {
    const char *path = getenv("WATTLEDGER_NVML_CONTROL"), *said = getenv("WATTLEDGER_NVML_FAULT");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return said ? said : "";
    size_t n = fread(buffer, 1, size - 1, file);
    fclose(file);
    buffer[n] = 0;
    return buffer;
}
/* The number after "name:" (or 0 where there is none) if the fault is on, else -1. */
static int fault(const char *name, int gpu) {
    char buffer[512], key[64];
    const char *said = faults(buffer, sizeof buffer);
    if (!*said) return -1;
    if (gpu >= 0) snprintf(key, sizeof key, "%s:%d", name, gpu);
    else snprintf(key, sizeof key, "%s", name);
    size_t n = strlen(key);
    for (const char *at = said; (at = strstr(at, key)); at += n) {
        char after = at[n];
        if (at != said && at[-1] != ',') continue;
        if (after == ':') return atoi(at + n + 1);
        if (after == 0 || after == ',' || after == '\n') return 0;
    }
    return -1;
}
static int on(const char *name) { return fault(name, -1) >= 0; }
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}
static unsigned int power_mw(gpu_t *g) { return 300000 + 100000 * (g->index % 4); }
static unsigned long long energy_mj(gpu_t *g) {
    return (unsigned long long)((now() - loaded_at) * power_mw(g));
}
static ret_t state(gpu_t *g) {
    if (on("gone")) { was_gone = 1; return UNINITIALIZED; }
    if (fault("lost", g->index) >= 0) return GPU_IS_LOST;
    if (fault("unknown", g->index) >= 0) return UNKNOWN;
    int ms = fault("slow", g->index);
    if (ms > 0) usleep(1000 * ms);
    while (fault("hang", g->index) >= 0) usleep(20000);
    return OK;
}
#define ASK(g) do { ret_t s = state(g); if (s) return s; } while (0)

ret_t nvmlInitWithFlags(unsigned int f) {
    (void)f;
    if (on("no_driver")) return DRIVER_NOT_LOADED;
    if (on("gone")) { was_gone = 1; return DRIVER_NOT_LOADED; }
    if (was_gone) loaded_at = now();  /* The counter begins anew. */
    was_gone = 0;
    for (int i = 0; i < MAX; i++) gpus[i] = (gpu_t){i, -1};
    for (int i = 0; i < 3; i++) parts[i] = (gpu_t){0, i};
    return OK;
}
ret_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
ret_t nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(ret_t r) { return r == OK ? "Success" : "stand-in error"; }
ret_t nvmlSystemGetDriverVersion(char *out, unsigned int n) { strncpy(out, "550.0-stand-in", n); return OK; }
ret_t nvmlDeviceGetCount_v2(unsigned int *n) {
    const char *said = getenv("WATTLEDGER_NVML_GPUS");
    *n = said ? atoi(said) : 2;
    return OK;
}
ret_t nvmlDeviceGetHandleByIndex_v2(unsigned int i, gpu_t **g) {
    if (fault("no_permission", i) >= 0) return NO_PERMISSION;
    if (fault("lost", i) >= 0) return GPU_IS_LOST;
    *g = &gpus[i];
    return OK;
}
ret_t nvmlDeviceGetUUID(gpu_t *g, char *out, unsigned int n) {
    if (g->instance >= 0) snprintf(out, n, "MIG-%d%d000000-stand-in", g->index + 1, g->instance);
    else snprintf(out, n, "GPU-%02d%02d%02d%02d-stand-in", g->index + 1, g->index + 1, g->index + 1, g->index + 1);
    return OK;
}
ret_t nvmlDeviceGetHandleByUUID(const char *uuid, gpu_t **g) {
    char name[96];
    for (int i = 0; i < MAX; i++) {
        nvmlDeviceGetUUID(&gpus[i], name, sizeof name);
        if (strcmp(name, uuid) == 0) {
            ret_t s = state(&gpus[i]);
            *g = &gpus[i];
            return s;
        }
    }
    return NOT_FOUND;
}
ret_t nvmlDeviceGetName(gpu_t *g, char *out, unsigned int n) {
    (void)g; strncpy(out, "NVIDIA H100 80GB HBM3", n); return OK;
}
ret_t nvmlDeviceGetPowerUsage(gpu_t *g, unsigned int *mw) {
    ASK(g);
    if (on("no_power")) return UNKNOWN;
    *mw = power_mw(g);
    return OK;
}
ret_t nvmlDeviceGetTotalEnergyConsumption(gpu_t *g, unsigned long long *mj) {
    ASK(g);
    if (on("no_counter")) return NOT_SUPPORTED;
    *mj = energy_mj(g);
    return OK;
}
ret_t nvmlDeviceGetFieldValues(gpu_t *g, int count, field_t *fields) {
    if (on("no_fields")) return NO_FUNCTION;
    ASK(g);
    for (int i = 0; i < count; i++) {
        field_t *f = &fields[i];
        f->ret = f->scope ? NOT_SUPPORTED : OK;
        f->type = 1;
        switch (f->id) {
        case 83: f->type = 3; f->value.ull = energy_mj(g); if (on("no_counter")) f->ret = NOT_SUPPORTED; break;
        case 185: f->value.ui = power_mw(g) - 1000; if (on("no_power")) f->ret = UNKNOWN; break;
        case 186:
            f->value.ui = power_mw(g);
            if (on("no_power")) f->ret = UNKNOWN;
            if (on("no_instant")) f->ret = NOT_SUPPORTED;
            break;
        case 82: f->value.ui = 61; break;
        case 190: f->value.ui = 700000; break;
        default: f->ret = INVALID;
        }
    }
    return OK;
}
ret_t nvmlDeviceGetUtilizationRates(gpu_t *g, util_t *u) {
    ASK(g);
    if (g->index == 0 && on("mig")) return NOT_SUPPORTED;
    u->gpu = 99; u->memory = 5;
    return OK;
}
ret_t nvmlDeviceGetMemoryInfo(gpu_t *g, memory_t *m) {
    ASK(g);
    m->total = 80ULL << 30; m->used = 70ULL << 30; m->free = 10ULL << 30;
    return OK;
}
ret_t nvmlDeviceGetTemperature(gpu_t *g, int s, unsigned int *c) { (void)s; ASK(g); *c = 55; return OK; }
ret_t nvmlDeviceGetClockInfo(gpu_t *g, int k, unsigned int *mhz) { (void)k; ASK(g); *mhz = 1755; return OK; }
ret_t nvmlDeviceGetEnforcedPowerLimit(gpu_t *g, unsigned int *mw) { ASK(g); *mw = 650000; return OK; }
ret_t nvmlDeviceGetCurrentClocksThrottleReasons(gpu_t *g, unsigned long long *why) { ASK(g); *why = 4; return OK; }

ret_t nvmlDeviceGetMigMode(gpu_t *g, unsigned int *current, unsigned int *pending) {
    *current = *pending = g->index == 0 && on("mig");
    return OK;
}
ret_t nvmlDeviceGetMaxMigDeviceCount(gpu_t *g, unsigned int *n) { (void)g; *n = 7; return OK; }
ret_t nvmlDeviceGetMigDeviceHandleByIndex(gpu_t *g, unsigned int i, gpu_t **part) {
    (void)g;
    if (i >= 3) return NOT_FOUND;
    *part = &parts[i];
    return OK;
}
ret_t nvmlDeviceGetAttributes_v2(gpu_t *g, attributes_t *a) {
    memset(a, 0, sizeof *a);
    a->gpu_slices = a->compute_slices = slices[g->instance];
    a->memory_mib = 10240 * slices[g->instance];
    return OK;
}
ret_t nvmlDeviceGetGpuInstanceProfileInfo(gpu_t *g, unsigned int profile, unsigned int *info) {
    (void)g;
    if (profile != 4) return NOT_SUPPORTED;  /* 7 slices */
    info[2] = 7;
    return OK;
}
