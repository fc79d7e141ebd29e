// Convolution and pooling of images (N, H, W, C).

// An array of images; the elements of a pixel are neighbours.
struct Images {
  float *data;
  long long image, row, pixel;  // distances
};

__device__ __forceinline__ float &at(
    const Images &images, int n, int y, int x, int c) {
  return images.data[n * images.image + y * images.row + x * images.pixel + c];
}

// Windows slide over the padded images; there are out_height * out_width of them.
struct Windows {
  int height, width, channels;  // of the images
  int out_height, out_width;
  int window_height, window_width;
  int stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x;
};

// The element with a number, where all are (N, height, width, channels).
struct Element {
  int n, y, x, c;
};

__device__ __forceinline__ Element element(
    unsigned i, unsigned height, unsigned width, unsigned channels) {
  Element e;
  e.c = i % channels;
  i /= channels;
  e.x = i % width;
  i /= width;
  e.y = i % height;
  e.n = i / height;
  return e;
}

// The windows that have a pixel in them: from the first ones to the last ones.
struct Around {
  int top, bottom, left, right;
};

__device__ __forceinline__ int first_window(int place, int window, int stride) {
  return place < window ? 0 : (place - window) / stride + 1;
}

__device__ __forceinline__ int last_window(int place, int stride, int count) {
  return place / stride < count ? place / stride : count - 1;
}

__device__ __forceinline__ Around around(const Windows &w, const Element &e) {
  const int y = e.y + w.padding_y, x = e.x + w.padding_x;
  return {first_window(y, w.window_height, w.stride_y),
          last_window(y, w.stride_y, w.out_height),
          first_window(x, w.window_width, w.stride_x),
          last_window(x, w.stride_x, w.out_width)};
}

// -- convolution ----------------------------------------------------------------

// columns[m, k] = the pixels of window m, in the order of a kernel's weights. A row of
// threads copies one row of a window, whose elements are neighbours.
extern "C" __global__ void windows_to_rows(
    Images images, Windows w, unsigned rows, float *columns) {
  const int length = w.window_width * w.channels;
  const bool dense = images.pixel == w.channels && w.dilation_x == 1;
  for (unsigned i = blockIdx.x * blockDim.y + threadIdx.y; i < rows;
       i += gridDim.x * blockDim.y) {
    const unsigned m = i / w.window_height;
    const Element e = element(m, w.out_height, w.out_width, 1);
    const int ky = (int)(i - m * w.window_height);
    const int y = e.y * w.stride_y - w.padding_y + ky * w.dilation_y;
    const int x = e.x * w.stride_x - w.padding_x;
    // Which elements are no padding, if they lie side by side.
    const bool inside = y >= 0 && y < w.height;
    const int first = x < 0 ? -x * w.channels : 0;
    const int last = inside ? (w.width - x) * w.channels : 0;
    const long long start = e.n * images.image + y * images.row + x * images.pixel;
    float *row = columns + (long long)i * length;
    for (int k = threadIdx.x; k < length; k += blockDim.x) {
      if (dense) {
        row[k] = k >= first && k < last ? images.data[start + k] : 0.0f;
        continue;
      }
      const int kx = k / w.channels, from = kx * w.dilation_x;
      const long long place = from * images.pixel + (k - kx * w.channels);
      const bool there = inside && x + from >= 0 && x + from < w.width;
      row[k] = there ? images.data[start + place] : 0.0f;
    }
  }
}

// The reverse: each pixel gets the sum of what all windows have for it.
extern "C" __global__ void rows_to_windows(
    const float *columns, Windows w, unsigned n, Images images, int fresh) {
  const long long row_length = w.window_width * w.channels;
  const long long window_size = w.window_height * row_length;
  for (unsigned i = thread_number(); i < n; i += thread_count()) {
    const Element e = element(i, w.height, w.width, w.channels);
    const int y = e.y + w.padding_y, x = e.x + w.padding_x;
    float sum = 0.0f;
    // Without dilation, only every so many places of a window can be this pixel.
    const int step_y = w.dilation_y == 1 ? w.stride_y : 1;
    const int step_x = w.dilation_x == 1 ? w.stride_x : 1;
    for (int ky = y % step_y; ky < w.window_height; ky += step_y) {
      const int top = y - ky * w.dilation_y, oy = top / w.stride_y;
      if (top < 0 || top % w.stride_y || oy >= w.out_height) continue;
      for (int kx = x % step_x; kx < w.window_width; kx += step_x) {
        const int left = x - kx * w.dilation_x, ox = left / w.stride_x;
        if (left < 0 || left % w.stride_x || ox >= w.out_width) continue;
        const long long window = (e.n * (long long)w.out_height + oy) * w.out_width + ox;
        const int place = kx * w.channels + e.c;
        sum += columns[window * window_size + ky * row_length + place];
      }
    }
    float &place = at(images, e.n, e.y, e.x, e.c);
    place = fresh ? sum : place + sum;
  }
}

// -- pooling --------------------------------------------------------------------

// How many pixels of a window, along one axis, are no padding.
__device__ __forceinline__ int pixels_inside(
    int place, int stride, int padding, int window, int size) {
  const int start = place * stride - padding, stop = start + window;
  return (stop < size ? stop : size) - (start > 0 ? start : 0);
}

__device__ __forceinline__ float pixels_of_window(const Windows &w, int oy, int ox) {
  return (float)(
      pixels_inside(oy, w.stride_y, w.padding_y, w.window_height, w.height) *
      pixels_inside(ox, w.stride_x, w.padding_x, w.window_width, w.width));
}

// The mean of each window or, where there is argmax, the largest: the first of equal
// values wins, and NaN over all. Padding counts for neither.
extern "C" __global__ void pool_forward(
    Images inputs, Windows w, unsigned n, Images outputs, Images argmax) {
  for (unsigned i = thread_number(); i < n; i += thread_count()) {
    const Element e = element(i, w.out_height, w.out_width, w.channels);
    const int top = e.y * w.stride_y - w.padding_y;
    const int left = e.x * w.stride_x - w.padding_x;
    const int none = w.window_height * w.window_width;
    int index = none;
    float result = argmax.data ? -FLOAT_MAX : 0.0f;
    for (int k = 0; k < none; ++k) {
      const int y = top + k / w.window_width, x = left + k % w.window_width;
      if (y < 0 || y >= w.height || x < 0 || x >= w.width) continue;
      const float value = at(inputs, e.n, y, x, e.c);
      if (!argmax.data) {
        result += value;
      } else if (index == none || value > result || value != value) {
        result = value;
        index = k;
      }
    }
    if (argmax.data)
      at(argmax, e.n, e.y, e.x, e.c) = (float)index;
    else
      result /= pixels_of_window(w, e.y, e.x);
    at(outputs, e.n, e.y, e.x, e.c) = result;
  }
}

extern "C" __global__ void pool_backward(
    Images argmax, Images out_deltas, Windows w, unsigned n, Images in_deltas,
    int fresh) {
  for (unsigned i = thread_number(); i < n; i += thread_count()) {
    const Element e = element(i, w.height, w.width, w.channels);
    const Around with = around(w, e);
    float sum = 0.0f;
    for (int oy = with.top; oy <= with.bottom; ++oy)
      for (int ox = with.left; ox <= with.right; ++ox) {
        const int ky = e.y + w.padding_y - oy * w.stride_y;
        const int kx = e.x + w.padding_x - ox * w.stride_x;
        if (!argmax.data)
          sum += at(out_deltas, e.n, oy, ox, e.c) / pixels_of_window(w, oy, ox);
        else if (at(argmax, e.n, oy, ox, e.c) == (float)(ky * w.window_width + kx))
          sum += at(out_deltas, e.n, oy, ox, e.c);
      }
    float &place = at(in_deltas, e.n, e.y, e.x, e.c);
    place = fresh ? sum : place + sum;
  }
}
