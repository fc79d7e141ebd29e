// Connectionist temporal classification.
//
// A block goes through one sequence. A path is in one of 2 L + 1 states in each step:
// the L labels, and blanks between and around them. In step t only some states can be
// reached, and only from some the end can be reached: no more than T + 1 in any step.

#define IMPOSSIBLE -1.0e300  // a logarithm

// p = softmax(x); log_sums (T * B,) receives x - log(p).
extern "C" __global__ void ctc_softmax(
    Sequence x, Sequence p, double *log_sums, int steps, int batch, int classes) {
  const long long row = (long long)blockIdx.x * blockDim.y + threadIdx.y;
  const bool used = row < (long long)steps * batch;
  const int t = used ? row / batch : 0, b = used ? row % batch : 0;
  const double log_sum = softmax_row(&at(x, t, b, 0), &at(p, t, b, 0), used * classes);
  if (threadIdx.x == 0 && used) log_sums[row] = log_sum;
}

struct Paths {
  Sequence x;
  const double *log_sums;
  const int *labels;
  int batch, b, length, states;
};

__device__ __forceinline__ int class_of(const Paths &q, int state) {
  return state % 2 ? q.labels[state / 2] : 0;
}

// Whether a path can go to a state without the blank before it.
__device__ __forceinline__ bool skips(const Paths &q, int state) {
  return state % 2 && state > 2 && q.labels[state / 2] != q.labels[state / 2 - 1];
}

// The states of a step that belong to whole paths: from, and up to.
__device__ __forceinline__ int first_state(const Paths &q, int t) {
  const long long first = q.states - 2LL * (q.length - t);
  return first > 0 ? (int)first : 0;
}

__device__ __forceinline__ int end_of_states(const Paths &q, int t) {
  const long long end = 2LL * t + 2;
  return end < q.states ? (int)end : q.states;
}

// The log-probability of the class.
__device__ __forceinline__ double emitted(const Paths &q, int t, int state) {
  const float x = at(q.x, t, q.b, class_of(q, state));
  return (double)x - q.log_sums[(long long)t * q.batch + q.b];
}

// What a step's row, which begins with its first state, has for a state.
__device__ __forceinline__ double look_up(
    const Paths &q, const double *row, int t, int state) {
  if (state < first_state(q, t) || state >= end_of_states(q, t)) return IMPOSSIBLE;
  return row[state - first_state(q, t)];
}

__device__ double log_add(double a, double b, double c) {
  if (a <= IMPOSSIBLE && b <= IMPOSSIBLE && c <= IMPOSSIBLE) return IMPOSSIBLE;
  const double most = a > b ? (a > c ? a : c) : (b > c ? b : c);
  return most + log(exp(a - most) + exp(b - most) + exp(c - most));
}

// Gathers the labels, those > 0, and checks them. Returns their number, -1 if they
// can not be.
__device__ int gather_labels(
    const Sequence &targets, int b, int steps, int classes, int length, int *labels,
    Failure *failure) {
  int count = 0, bad = 0, repeated = 0, before;
  for (int start = 0; start < steps; start += blockDim.x) {
    const int t = start + threadIdx.x;
    const float target = t < steps ? at(targets, t, b, 0) : 0.0f;
    const bool good = is_index(target, classes);
    if (!good) fail(failure, BAD_LABEL, classes - 1, target);
    bad += count_before(!good, threadIdx.x, &before);
    const bool is_label = good && target != 0.0f;
    const int found = count_before(is_label, threadIdx.x, &before);
    if (is_label) labels[count + before] = (int)target;
    count += found;
  }
  __syncthreads();
  for (int start = 1; start < count; start += blockDim.x) {
    const int i = start + threadIdx.x;
    const bool repeats = i < count && labels[i] == labels[i - 1];
    repeated += count_before(repeats, threadIdx.x, &before);
  }
  if (bad) return -1;
  if (count + repeated <= length) return count;
  const float needed = (float)(count + repeated);
  if (threadIdx.x == 0) fail(failure, TOO_MANY_LABELS, length, needed);
  return -1;
}

// A block's numbers, in rows of `width`. Of alpha, the log-probability to be in a state
// after all classes up to that step, only the rows of one segment are kept; those of
// the others are computed anew from the row before the segment, which is kept of each.
// So for T steps there are about 2 sqrt(T) rows.
struct Work {
  double *alpha;   // of a segment of `segment` steps; its shares in the end
  double *before;  // alpha of the step before each segment
  double *beta;    // two rows: the log-probability of the labels behind a state
  int width, segment;
};

__device__ __forceinline__ double *alpha_of(const Work &w, int t) {
  return w.alpha + (long long)(t % w.segment) * w.width;
}

// Computes alpha for the steps of a segment.
__device__ void ctc_ahead(const Paths &q, const Work &w, int segment) {
  const int start = segment * w.segment;
  for (int t = start; t < q.length && t - start < w.segment; ++t) {
    const double *old = t == start ? w.before + (long long)segment * w.width
                                   : alpha_of(w, t - 1);
    double *row = alpha_of(w, t), *kept = nullptr;
    if (t - start == w.segment - 1 && t + 1 < q.length)
      kept = w.before + (segment + 1LL) * w.width;
    const int first = first_state(q, t);
    for (int s = first + threadIdx.x; s < end_of_states(q, t); s += blockDim.x) {
      double reached = 0.0;
      if (t > 0)
        reached = log_add(
            look_up(q, old, t - 1, s), look_up(q, old, t - 1, s - 1),
            skips(q, s) ? look_up(q, old, t - 1, s - 2) : IMPOSSIBLE);
      row[s - first] = reached + emitted(q, t, s);
      if (kept) kept[s - first] = row[s - first];
    }
    __syncthreads();
  }
}

// The log-probability of all labels, when alpha has the last segment.
__device__ double ctc_total(const Paths &q, const Work &w) {
  const int last = q.length - 1;
  if (last < 0) return 0.0;
  const double *row = alpha_of(w, last);
  return log_add(look_up(q, row, last, q.states - 1),
                 look_up(q, row, last, q.states - 2), IMPOSSIBLE);
}

// Puts the probability of each state, given the labels, in the place of alpha, for the
// steps from `last` down to `start`.
__device__ void ctc_back(
    const Paths &q, const Work &w, double total, int start, int last) {
  for (int t = last; t >= start; --t) {
    const double *later = w.beta + (t + 1) % 2 * w.width;
    double *now = w.beta + t % 2 * w.width, *row = alpha_of(w, t);
    const int first = first_state(q, t);
    for (int s = first + threadIdx.x; s < end_of_states(q, t); s += blockDim.x) {
      double left = 0.0;
      if (t < q.length - 1)
        left = log_add(
            look_up(q, later, t + 1, s), look_up(q, later, t + 1, s + 1),
            skips(q, s + 2) ? look_up(q, later, t + 1, s + 2) : IMPOSSIBLE);
      const double share = exp(row[s - first] + left - total);
      now[s - first] = left + emitted(q, t, s);
      // NaN becomes 0, and so does all where the labels can not be.
      row[s - first] = total > IMPOSSIBLE && share <= FLOAT_MAX ? share : 0.0;
    }
    __syncthreads();
  }
}

// For each label the place of the next equal one; negative where there is one before.
__device__ void link_labels(const Paths &q, int *links) {
  const int count = q.states / 2;
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    int next = i + 1, before = i - 1;
    while (next < count && q.labels[next] != q.labels[i]) ++next;
    while (before >= 0 && q.labels[before] != q.labels[i]) --before;
    links[i] = before >= 0 ? -next : next;
  }
  __syncthreads();
}

// The shares of all states of a class are added up, always in the same order.
__device__ void ctc_expected(
    const Paths &q, const Work &w, const int *links, const Sequence &expected,
    int start, int last) {
  const int count = q.states / 2;
  const long long sums = (last + 1LL - start) * (count + 1);
  for (long long k = threadIdx.x; k < sums; k += blockDim.x) {
    const int t = start + (int)(k / (count + 1)), i = k % (count + 1) - 1;
    const int first = first_state(q, t), end = end_of_states(q, t);
    const double *row = alpha_of(w, t);
    double sum = 0.0;
    if (i < 0) {
      for (int s = first + first % 2; s < end; s += 2) sum += row[s - first];
    } else if (links[i] > 0) {
      for (int j = i; j < count; j = links[j] < 0 ? -links[j] : links[j])
        if (2 * j + 1 >= first && 2 * j + 1 < end) sum += row[2 * j + 1 - first];
    } else {
      continue;
    }
    at(expected, t, q.b, i < 0 ? 0 : q.labels[i]) = (float)sum;
  }
  __syncthreads();
}

// For the sequences from `first_b` on, one for each block. Segments have `segment` steps.
// Of `work` each block has a row of T + 1 numbers for each of those, for each segment,
// and two more; of `labels` 2 T.
extern "C" __global__ void ctc_forward(
    Sequence x, const double *log_sums, Sequence targets, const float *lengths,
    long long lengths_row, Sequence expected, float *loss, long long loss_row,
    double *work, int *labels, int steps, int batch, int classes, int segment,
    Failure *failure, int first_b) {
  const int b = first_b + blockIdx.x, segments = (steps + segment - 1) / segment;
  const long long width = steps + 1;
  const int length = length_of(lengths, lengths_row, b, steps);
  labels += 2LL * steps * blockIdx.x;
  work += (segment + segments + 2) * width * blockIdx.x;
  for (int t = 0; t < steps; ++t)
    for (int c = threadIdx.x; c < classes; c += blockDim.x) at(expected, t, b, c) = 0.0f;
  const int count = gather_labels(targets, b, steps, classes, length, labels, failure);
  if (count < 0) {
    if (threadIdx.x == 0) loss[b * loss_row] = nanf("");
    return;
  }
  const Paths q = {x, log_sums, labels, batch, b, length, 2 * count + 1};
  const Work w = {work, work + segment * width, work + (segment + segments) * width,
                  (int)width, segment};
  const int used = (length + segment - 1) / segment;
  int *links = labels + steps;
  link_labels(q, links);
  for (int k = 0; k < used; ++k) ctc_ahead(q, w, k);
  const double total = ctc_total(q, w);
  if (threadIdx.x == 0)
    loss[b * loss_row] = total <= IMPOSSIBLE ? -logf(0.0f) : (float)-total;
  __syncthreads();
  for (int k = used - 1; k >= 0; --k) {
    const int start = k * segment;
    const int last = length - start < segment ? length - 1 : start + segment - 1;
    if (k < used - 1) ctc_ahead(q, w, k);
    ctc_back(q, w, total, start, last);
    ctc_expected(q, w, links, expected, start, last);
  }
}

// dx (+)= (p - expected) dloss, nothing behind the ends.
extern "C" __global__ void ctc_backward(
    Sequence p, Sequence expected, const float *lengths, long long lengths_row,
    const float *dloss, long long dloss_row, Sequence dx, int steps, int batch,
    int classes, int fresh) {
  const long long n = (long long)steps * batch * classes;
  for (long long i = thread_number(); i < n; i += thread_count()) {
    const int c = i % classes, b = i / classes % batch, t = i / classes / batch;
    float delta = 0.0f;
    if (t < length_of(lengths, lengths_row, b, steps))
      delta = (at(p, t, b, c) - at(expected, t, b, c)) * dloss[b * dloss_row];
    at(dx, t, b, c) = fresh ? delta : at(dx, t, b, c) + delta;
  }
}
