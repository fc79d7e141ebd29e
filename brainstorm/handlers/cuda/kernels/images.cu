// Convolution and pooling of images (N, H, W, C).

// An array of images; the elements of a pixel are neighbours.
struct Images {
  float *data;
  long long image, row, pixel;  // distances
};

__device__ __forceinline__ float &at(
    const Images &images, long long n, int y, int x, int c) {
  return images.data[n * images.image + y * images.row + x * images.pixel + c];
}

// Windows slide over the padded images; there are out_height * out_width of them.
struct Windows {
  int height, width, channels;  // of the images
  int out_height, out_width;
  int window_height, window_width;
  int stride_y, stride_x, padding;
};

// The element with a number, where all are (N, height, width, channels).
struct Element {
  long long n;
  int y, x, c;
};

__device__ __forceinline__ Element element(
    long long i, int height, int width, int channels) {
  Element e;
  e.c = i % channels;
  i /= channels;
  e.x = i % width;
  i /= width;
  e.y = i % height;
  e.n = i / height;
  return e;
}

// The range of windows, along one axis, that have a pixel in them.
__device__ __forceinline__ int first_window(
    int pixel, int padding, int window, int stride) {
  const int behind = pixel + padding - window;
  return behind < 0 ? 0 : behind / stride + 1;
}

__device__ __forceinline__ int last_window(
    int pixel, int padding, int stride, int count) {
  const int last = (pixel + padding) / stride;
  return last < count ? last : count - 1;
}

// -- convolution ----------------------------------------------------------------

// columns[m, k] = the pixels of window m, in the order of a kernel's weights.
extern "C" __global__ void windows_to_rows(
    Images images, Windows w, long long n, float *columns) {
  for (long long i = thread_number(); i < n; i += thread_count()) {
    const int c = i % w.channels;
    long long rest = i / w.channels;
    const int kx = rest % w.window_width;
    rest /= w.window_width;
    const int ky = rest % w.window_height;
    const Element e = element(rest / w.window_height, w.out_height, w.out_width, 1);
    const int y = e.y * w.stride_y - w.padding + ky;
    const int x = e.x * w.stride_x - w.padding + kx;
    const bool inside = y >= 0 && y < w.height && x >= 0 && x < w.width;
    columns[i] = inside ? at(images, e.n, y, x, c) : 0.0f;
  }
}

// The reverse: each pixel gets the sum of what all windows have for it.
extern "C" __global__ void rows_to_windows(
    const float *columns, Windows w, long long n, Images images, int fresh) {
  for (long long i = thread_number(); i < n; i += thread_count()) {
    const Element e = element(i, w.height, w.width, w.channels);
    const int bottom = last_window(e.y, w.padding, w.stride_y, w.out_height);
    const int right = last_window(e.x, w.padding, w.stride_x, w.out_width);
    const int left = first_window(e.x, w.padding, w.window_width, w.stride_x);
    int oy = first_window(e.y, w.padding, w.window_height, w.stride_y);
    float sum = 0.0f;
    for (; oy <= bottom; ++oy)
      for (int ox = left; ox <= right; ++ox) {
        const int ky = e.y + w.padding - oy * w.stride_y;
        const int kx = e.x + w.padding - ox * w.stride_x;
        const long long m = (e.n * w.out_height + oy) * w.out_width + ox;
        const long long k = (m * w.window_height + ky) * w.window_width + kx;
        sum += columns[k * w.channels + e.c];
      }
    float &place = at(images, e.n, e.y, e.x, e.c);
    place = fresh ? sum : place + sum;
  }
}

// -- pooling --------------------------------------------------------------------

// The first of equal values wins, and NaN over all; padding never does.
extern "C" __global__ void maxpool_forward(
    Images inputs, Windows w, long long n, Images outputs, Images argmax) {
  for (long long i = thread_number(); i < n; i += thread_count()) {
    const Element e = element(i, w.out_height, w.out_width, w.channels);
    const int top = e.y * w.stride_y - w.padding;
    const int left = e.x * w.stride_x - w.padding;
    const int none = w.window_height * w.window_width;
    int index = none;
    float largest = -FLOAT_MAX;
    for (int k = 0; k < none; ++k) {
      const int y = top + k / w.window_width, x = left + k % w.window_width;
      if (y < 0 || y >= w.height || x < 0 || x >= w.width) continue;
      const float value = at(inputs, e.n, y, x, e.c);
      if (index == none || value > largest || value != value) {
        largest = value;
        index = k;
      }
    }
    at(outputs, e.n, e.y, e.x, e.c) = largest;
    at(argmax, e.n, e.y, e.x, e.c) = (float)index;
  }
}

extern "C" __global__ void maxpool_backward(
    Images argmax, Images out_deltas, Windows w, long long n, Images in_deltas,
    int fresh) {
  for (long long i = thread_number(); i < n; i += thread_count()) {
    const Element e = element(i, w.height, w.width, w.channels);
    const int bottom = last_window(e.y, w.padding, w.stride_y, w.out_height);
    const int right = last_window(e.x, w.padding, w.stride_x, w.out_width);
    const int left = first_window(e.x, w.padding, w.window_width, w.stride_x);
    int oy = first_window(e.y, w.padding, w.window_height, w.stride_y);
    float sum = 0.0f;
    for (; oy <= bottom; ++oy)
      for (int ox = left; ox <= right; ++ox) {
        const int ky = e.y + w.padding - oy * w.stride_y;
        const int kx = e.x + w.padding - ox * w.stride_x;
        if (at(argmax, e.n, oy, ox, e.c) == (float)(ky * w.window_width + kx))
          sum += at(out_deltas, e.n, oy, ox, e.c);
      }
    float &place = at(in_deltas, e.n, e.y, e.x, e.c);
    place = fresh ? sum : place + sum;
  }
}

// How many pixels of a window, along one axis, are no padding.
__device__ __forceinline__ int pixels_inside(
    int place, int stride, int padding, int window, int size) {
  const int start = place * stride - padding, stop = start + window;
  return (stop < size ? stop : size) - (start > 0 ? start : 0);
}

__device__ __forceinline__ float pixels_of_window(const Windows &w, int oy, int ox) {
  return (float)(
      pixels_inside(oy, w.stride_y, w.padding, w.window_height, w.height) *
      pixels_inside(ox, w.stride_x, w.padding, w.window_width, w.width));
}

extern "C" __global__ void avgpool_forward(
    Images inputs, Windows w, long long n, Images outputs) {
  for (long long i = thread_number(); i < n; i += thread_count()) {
    const Element e = element(i, w.out_height, w.out_width, w.channels);
    const int top = e.y * w.stride_y - w.padding;
    const int left = e.x * w.stride_x - w.padding;
    float sum = 0.0f;
    for (int k = 0; k < w.window_height * w.window_width; ++k) {
      const int y = top + k / w.window_width, x = left + k % w.window_width;
      if (y >= 0 && y < w.height && x >= 0 && x < w.width)
        sum += at(inputs, e.n, y, x, e.c);
    }
    at(outputs, e.n, e.y, e.x, e.c) = sum / pixels_of_window(w, e.y, e.x);
  }
}

extern "C" __global__ void avgpool_backward(
    Images out_deltas, Windows w, long long n, Images in_deltas, int fresh) {
  for (long long i = thread_number(); i < n; i += thread_count()) {
    const Element e = element(i, w.height, w.width, w.channels);
    const int bottom = last_window(e.y, w.padding, w.stride_y, w.out_height);
    const int right = last_window(e.x, w.padding, w.stride_x, w.out_width);
    const int left = first_window(e.x, w.padding, w.window_width, w.stride_x);
    int oy = first_window(e.y, w.padding, w.window_height, w.stride_y);
    float sum = 0.0f;
    for (; oy <= bottom; ++oy)
      for (int ox = left; ox <= right; ++ox)
        sum += at(out_deltas, e.n, oy, ox, e.c) / pixels_of_window(w, oy, ox);
    float &place = at(in_deltas, e.n, e.y, e.x, e.c);
    place = fresh ? sum : place + sum;
  }
}
