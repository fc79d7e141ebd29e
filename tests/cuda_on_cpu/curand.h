// What PyCUDA uses of curand.h, so that it can be built without that library, for tests.
#pragma once

typedef int curandStatus_t;
#define CURAND_STATUS_SUCCESS 0

typedef unsigned curandDirectionVectors32_t[32];
typedef unsigned long long curandDirectionVectors64_t[64];

typedef enum {
  CURAND_DIRECTION_VECTORS_32_JOEKUO6 = 101,
  CURAND_SCRAMBLED_DIRECTION_VECTORS_32_JOEKUO6 = 102,
  CURAND_DIRECTION_VECTORS_64_JOEKUO6 = 103,
  CURAND_SCRAMBLED_DIRECTION_VECTORS_64_JOEKUO6 = 104
} curandDirectionVectorSet_t;

#ifdef __cplusplus
extern "C" {
#endif
curandStatus_t curandGetVersion(int *);
curandStatus_t curandGetDirectionVectors32(curandDirectionVectors32_t **,
                                           curandDirectionVectorSet_t);
curandStatus_t curandGetDirectionVectors64(curandDirectionVectors64_t **,
                                           curandDirectionVectorSet_t);
curandStatus_t curandGetScrambleConstants32(unsigned **);
curandStatus_t curandGetScrambleConstants64(unsigned long long **);
#ifdef __cplusplus
}
#endif
