// Work on whole sequences, and connectionist temporal classification.

// (T, B, N), the last axis dense.
struct Sequence {
  float *data;
  long long step, row;  // distances
};

__device__ __forceinline__ float &at(const Sequence &s, int t, int b, int n) {
  return s.data[t * s.step + b * s.row + n];
}

// `lengths` may be null, then all sequences are of full length.
__device__ __forceinline__ int length_of(
    const float *lengths, long long lengths_row, int b, int steps) {
  const float length = lengths ? lengths[b * lengths_row] : (float)steps;
  return length >= (float)steps ? steps : length > 0.0f ? (int)length : 0;
}

extern "C" __global__ void sequence_lengths(
    Sequence mask, float *lengths, long long lengths_row, int steps, int batch) {
  for (int b = thread_number(); b < batch; b += thread_count()) {
    int length = steps;
    while (length > 0 && at(mask, length - 1, b, 0) == 0.0f) --length;
    lengths[b * lengths_row] = (float)length;
  }
}

// out[t] = x[length - 1 - t] in each sequence, and 0 behind its end.
extern "C" __global__ void reverse_steps(
    Sequence x, const float *lengths, long long lengths_row, Sequence out, int steps,
    int batch, int units, int fresh) {
  const long long n = (long long)steps * batch * units;
  for (long long i = thread_number(); i < n; i += thread_count()) {
    const int u = i % units, b = i / units % batch, t = i / units / batch;
    const int length = length_of(lengths, lengths_row, b, steps);
    const float value = t < length ? at(x, length - 1 - t, b, u) : 0.0f;
    at(out, t, b, u) = fresh ? value : at(out, t, b, u) + value;
  }
}
