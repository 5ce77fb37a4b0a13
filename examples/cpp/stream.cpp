// Streams a recording through a package with onnxruntime's C API: stream PACKAGE VARIANT AUDIO.wav [LOOKAHEAD]
//
// For packages of streaming models without a language prompt, variants kv-*; 16-bit mono WAV at the model's rate. It is the loop of
// ../streaming_numpy.py, which docs/streaming.md explains. It needs C++17 and onnxruntime's header and library, nothing else.

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <regex>
#include <string>
#include <vector>

#include "onnxruntime_c_api.h"

static const OrtApi* api = OrtGetApiBase()->GetApi(ORT_API_VERSION);

static void check(OrtStatus* status) {
  if (status == nullptr) return;
  std::cerr << api->GetErrorMessage(status) << "\n";
  std::exit(1);
}

static std::string read_file(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) {
    std::cerr << path << " cannot be read\n";
    std::exit(1);
  }
  return {std::istreambuf_iterator<char>(stream), {}};
}

// A number of config.json. A program with a JSON library reads it with that.
static double number(const std::string& config, const std::string& key) {
  std::smatch found;
  if (!std::regex_search(config, found, std::regex("\"" + key + "\": *(-?[0-9.eE+-]+)"))) {
    std::cerr << "config.json has no " << key << "\n";
    std::exit(1);
  }
  return std::stod(found[1]);
}

// Log-mel

static void fft(std::vector<std::complex<double>>& x) {
  const size_t n = x.size();
  if (n == 1) return;
  std::vector<std::complex<double>> even(n / 2), odd(n / 2);
  for (size_t i = 0; i < n / 2; ++i) even[i] = x[2 * i], odd[i] = x[2 * i + 1];
  fft(even), fft(odd);
  for (size_t i = 0; i < n / 2; ++i) {
    const auto turned = std::polar(1.0, -2 * M_PI * double(i) / double(n)) * odd[i];
    x[i] = even[i] + turned, x[i + n / 2] = even[i] - turned;
  }
}

struct Mel {
  size_t bands, size, hop;
  double emphasis, guard, last = 0;
  std::vector<double> window, held;
  std::vector<float> filterbank;  // [bands, size / 2 + 1]

  Mel(const std::string& config, const std::string& shared)
      : bands(size_t(number(config, "n_mels"))), size(size_t(number(config, "n_fft"))), hop(size_t(number(config, "hop_samples"))),
        emphasis(number(config, "preemphasis")), guard(number(config, "log_guard")), window(size, 0.0), held(size / 2, 0.0) {
    const auto width = size_t(number(config, "win_samples"));
    for (size_t i = 0; i < width; ++i)  // symmetric Hann, in the middle of the FFT
      window[(size - width) / 2 + i] = 0.5 - 0.5 * std::cos(2 * M_PI * double(i) / double(width - 1));
    const std::string bytes = read_file(shared + "/filterbank.bin");
    filterbank.resize(bytes.size() / sizeof(float));
    std::memcpy(filterbank.data(), bytes.data(), bytes.size());
  }

  // Appends the frames that the samples complete, [bands] each.
  void feed(const std::vector<float>& samples, std::vector<std::vector<float>>& frames) {
    for (const float sample : samples) held.push_back(sample - emphasis * last), last = sample;
    size_t at = 0;
    for (; at + size <= held.size(); at += hop) {
      std::vector<std::complex<double>> x(size);
      for (size_t i = 0; i < size; ++i) x[i] = held[at + i] * window[i];
      fft(x);
      std::vector<float> frame(bands);
      for (size_t band = 0; band < bands; ++band) {
        double power = 0;
        for (size_t i = 0; i <= size / 2; ++i) power += double(filterbank[band * (size / 2 + 1) + i]) * std::norm(x[i]);
        frame[band] = float(std::log(power + guard));
      }
      frames.push_back(std::move(frame));
    }
    held.erase(held.begin(), held.begin() + long(at));
  }

  // The frames that the end of the audio completes. One is left out: NeMo has n / hop frames for n samples.
  void finish(std::vector<std::vector<float>>& frames) {
    last = 0;
    feed(std::vector<float>(size / 2, 0.0f), frames);
    if (!frames.empty()) frames.pop_back();
  }
};

// Graphs

struct Tensor {
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  std::vector<int64_t> shape;
  std::vector<char> bytes;

  float* floats() { return reinterpret_cast<float*>(bytes.data()); }
  int64_t* longs() { return reinterpret_cast<int64_t*>(bytes.data()); }
};

static size_t width_of(ONNXTensorElementDataType type) { return type == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 ? 8 : 4; }

static Tensor tensor(ONNXTensorElementDataType type, std::vector<int64_t> shape) {  // of zeros
  size_t count = 1;
  for (const int64_t size : shape) count *= size_t(size);
  return {type, std::move(shape), std::vector<char>(count * width_of(type), 0)};
}

template <typename T>
static Tensor scalar(ONNXTensorElementDataType type, std::vector<int64_t> shape, T value) {
  Tensor made = tensor(type, std::move(shape));
  std::memcpy(made.bytes.data(), &value, sizeof value);
  return made;
}

using Tensors = std::map<std::string, Tensor>;

struct Graph {
  OrtSession* session = nullptr;
  OrtMemoryInfo* memory = nullptr;
  std::vector<std::string> inputs, outputs;
  Tensors zeros;  // of every input, with dimensions that are open taken as 1

  Graph(OrtEnv* env, const std::string& path) {
    OrtSessionOptions* options = nullptr;
    check(api->CreateSessionOptions(&options));
    check(api->SetIntraOpNumThreads(options, 1));  // what costs least for one stream
    check(api->CreateSession(env, path.c_str(), options, &session));
    api->ReleaseSessionOptions(options);
    check(api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
    OrtAllocator* allocator = nullptr;
    check(api->GetAllocatorWithDefaultOptions(&allocator));
    size_t count = 0;
    check(api->SessionGetInputCount(session, &count));
    for (size_t i = 0; i < count; ++i) {
      char* name = nullptr;
      check(api->SessionGetInputName(session, i, allocator, &name));
      inputs.emplace_back(name);
      check(api->AllocatorFree(allocator, name));
      OrtTypeInfo* info = nullptr;
      check(api->SessionGetInputTypeInfo(session, i, &info));
      zeros[inputs.back()] = described(info);
      api->ReleaseTypeInfo(info);
    }
    check(api->SessionGetOutputCount(session, &count));
    for (size_t i = 0; i < count; ++i) {
      char* name = nullptr;
      check(api->SessionGetOutputName(session, i, allocator, &name));
      outputs.emplace_back(name);
      check(api->AllocatorFree(allocator, name));
    }
  }

  static Tensor described(OrtTypeInfo* info) {
    const OrtTensorTypeAndShapeInfo* shape_info = nullptr;
    check(api->CastTypeInfoToTensorInfo(info, &shape_info));
    ONNXTensorElementDataType type;
    check(api->GetTensorElementType(shape_info, &type));
    size_t rank = 0;
    check(api->GetDimensionsCount(shape_info, &rank));
    std::vector<int64_t> shape(rank);
    check(api->GetDimensions(shape_info, shape.data(), rank));
    for (auto& size : shape) size = std::max<int64_t>(size, 1);
    return tensor(type, shape);
  }

  Tensors run(Tensors& feeds) {
    std::vector<const char*> in, out;
    std::vector<OrtValue*> values, results(outputs.size(), nullptr);
    for (const auto& name : inputs) {
      Tensor& one = feeds.at(name);
      OrtValue* value = nullptr;
      check(api->CreateTensorWithDataAsOrtValue(memory, one.bytes.data(), one.bytes.size(), one.shape.data(), one.shape.size(),
                                                one.type, &value));
      in.push_back(name.c_str()), values.push_back(value);
    }
    for (const auto& name : outputs) out.push_back(name.c_str());
    check(api->Run(session, nullptr, in.data(), values.data(), in.size(), out.data(), out.size(), results.data()));
    for (OrtValue* value : values) api->ReleaseValue(value);
    Tensors found;
    for (size_t i = 0; i < outputs.size(); ++i) {
      OrtTensorTypeAndShapeInfo* info = nullptr;
      check(api->GetTensorTypeAndShape(results[i], &info));
      Tensor one;
      size_t rank = 0;
      check(api->GetTensorElementType(info, &one.type));
      check(api->GetDimensionsCount(info, &rank));
      one.shape.resize(rank);
      check(api->GetDimensions(info, one.shape.data(), rank));
      size_t count = 0;
      check(api->GetTensorShapeElementCount(info, &count));
      api->ReleaseTensorTypeAndShapeInfo(info);
      void* data = nullptr;
      check(api->GetTensorMutableData(results[i], &data));
      one.bytes.assign(static_cast<char*>(data), static_cast<char*>(data) + count * width_of(one.type));
      api->ReleaseValue(results[i]);
      found[outputs[i]] = std::move(one);
    }
    return found;
  }
};

// A stream

struct Stream {
  Mel mel;
  Graph encoder, decoder;
  Tensors caches, states;
  size_t past, first_window, later_window;
  int32_t token, blank;
  int most;
  bool first = true;
  std::vector<std::vector<float>> frames;
  std::vector<int32_t> tokens;

  Stream(OrtEnv* env, const std::string& package, const std::string& variant, const std::string& config, size_t lookahead)
      : mel(config, package + "/shared"), encoder(env, package + "/" + variant + "/encoder_model.onnx"),
        decoder(env, package + "/" + variant + "/decoder_model.onnx"),
        past(size_t(number(config, "pre_encode_cache_mel_frames"))), first_window(1 + 8 * lookahead),
        later_window(past + 8 * (lookahead + 1)), token(int32_t(number(config, "first_target"))),
        blank(int32_t(number(config, "blank_id"))), most(int(number(config, "max_symbols_per_frame"))) {
    for (const auto& [name, zero] : encoder.zeros)
      if (name.rfind("cache_", 0) == 0) caches[name] = zero;
    for (const auto& name : {"input_states_1", "input_states_2"}) states[name] = decoder.zeros.at(name);
  }

  size_t wanted() const { return first ? first_window : later_window; }

  void feed(const std::vector<float>& samples) {
    mel.feed(samples, frames);
    while (frames.size() >= wanted()) run(wanted());
  }

  void finish() {
    mel.finish(frames);
    while (frames.size() > (first ? 0 : past)) run(std::min(wanted(), frames.size()));
  }

  void run(size_t count) {
    Tensors feeds = caches;
    Tensor window = tensor(ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, {1, int64_t(mel.bands), int64_t(wanted())});
    for (size_t t = 0; t < count; ++t)
      for (size_t band = 0; band < mel.bands; ++band) window.floats()[band * wanted() + t] = frames[t][band];
    feeds["length"] = scalar(ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, {1}, int64_t(count));
    feeds["audio_signal"] = std::move(window);
    // The next window begins with the last frames of this one; before the first there are fewer, and they are zeros.
    frames.erase(frames.begin(), frames.begin() + long(count - std::min(count, past)));
    if (first && count < past) frames.insert(frames.begin(), past - count, std::vector<float>(mel.bands, 0.0f));
    first = false;
    Tensors out = encoder.run(feeds);
    carry_on(out);
    decode(out.at("outputs"), out.at("encoded_lengths").longs()[0]);
  }

  // Puts what the window adds behind each cache, whose first axis is frames, and keeps its last frames.
  void carry_on(Tensors& out) {
    const int64_t added = out.at("outputs").shape[2];
    for (auto& [name, cache] : caches) {
      if (name == "cache_len") {
        cache.longs()[0] = std::min(cache.longs()[0] + added, caches.at("cache_key_0").shape[0]);
        continue;
      }
      std::string addition = name.substr(std::strlen("cache_"));  // key_0 -> key_new_0
      addition.insert(addition.find('_'), "_new");
      const auto& fresh = out.at(addition).bytes;
      const size_t size = cache.bytes.size();
      cache.bytes.insert(cache.bytes.end(), fresh.begin(), fresh.end());
      cache.bytes.erase(cache.bytes.begin(), cache.bytes.end() - long(size));
    }
  }

  // Greedy RNNT. encoded: [1, width, frames].
  void decode(Tensor& encoded, int64_t count) {
    const int64_t width = encoded.shape[1], total = encoded.shape[2];
    for (int64_t t = 0; t < count; ++t) {
      Tensor frame = tensor(ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, {1, width, 1});
      for (int64_t i = 0; i < width; ++i) frame.floats()[i] = encoded.floats()[i * total + t];
      for (int symbol = 0; symbol < most; ++symbol) {
        Tensors feeds = states;
        feeds["encoder_outputs"] = frame;
        feeds["targets"] = scalar(ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, {1, 1}, token);
        feeds["target_length"] = scalar(ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, {1}, int32_t(1));
        Tensors out = decoder.run(feeds);
        Tensor& scores = out.at("outputs");
        const float* begin = scores.floats();
        const auto best = int32_t(std::max_element(begin, begin + scores.bytes.size() / sizeof(float)) - begin);
        if (best == blank) break;  // the next frame; the states stay as they were
        token = best;
        tokens.push_back(best);
        states["input_states_1"] = out.at("output_states_1");
        states["input_states_2"] = out.at("output_states_2");
      }
    }
  }
};

static std::vector<float> read_wav(const std::string& path, double rate) {
  const std::string bytes = read_file(path);
  const size_t data = bytes.find("data", 12), format = bytes.find("fmt ", 12);
  const auto at = [&](size_t place, int count) {
    uint32_t value = 0;
    std::memcpy(&value, bytes.data() + place, size_t(count));
    return value;
  };
  const bool usable = data != std::string::npos && format != std::string::npos && at(format + 10, 2) == 1 &&
                      at(format + 12, 4) == uint32_t(rate) && at(format + 22, 2) == 16;
  if (!usable) {
    std::cerr << path << ": needs a 16-bit mono WAV at " << rate << " Hz\n";
    std::exit(1);
  }
  std::vector<float> samples;
  for (size_t place = data + 8; place + 1 < bytes.size(); place += 2) samples.push_back(float(int16_t(at(place, 2))) / 32768.0f);
  return samples;
}

int main(int count, char** arguments) {
  if (count < 4) {
    std::cerr << "stream PACKAGE VARIANT AUDIO.wav [LOOKAHEAD]\n";
    return 2;
  }
  const std::string package = arguments[1], config = read_file(package + "/config.json");
  const size_t lookahead = count > 4 ? std::stoul(arguments[4]) : size_t(number(config, "default_lookahead"));
  OrtEnv* env = nullptr;
  check(api->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "stream", &env));
  Stream stream(env, package, arguments[2], config, lookahead);
  const auto samples = read_wav(arguments[3], number(config, "sample_rate"));
  for (size_t at = 0; at < samples.size(); at += 1600)  // packets, as a microphone gives them
    stream.feed({samples.begin() + long(at), samples.begin() + long(std::min(at + 1600, samples.size()))});
  stream.finish();

  std::vector<std::string> pieces;
  std::ifstream lines(package + "/shared/tokens.txt");
  for (std::string line; std::getline(lines, line);) pieces.push_back(line.substr(0, line.rfind(' ')));
  std::string text;
  for (const int32_t token : stream.tokens) text += pieces.at(size_t(token));
  text = std::regex_replace(text, std::regex("\u2581"), " ");
  std::cout << text.substr(text.find_first_not_of(' ') == std::string::npos ? text.size() : text.find_first_not_of(' ')) << "\n";
}
