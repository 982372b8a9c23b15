// Segment an image with ONNX Runtime.
//
// segment whole.onnx image.ppm labels.pgm
//
// The graph is from `danet export default --to onnx --preprocessing`. The image is a binary PPM with 8 bits per band;
// the labels are a binary PGM whose values are the indices of the classes.

#include <onnxruntime_cxx_api.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

struct Image {
  int64_t height = 0, width = 0;
  std::vector<uint8_t> pixels;  // H,W,3, RGB
};

static int64_t read_number(std::istream& file) {
  while ((file >> std::ws).peek() == '#') file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  int64_t number = 0;
  file >> number;
  return number;
}

static Image read_ppm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  char magic[2] = {};
  file.read(magic, 2);
  Image image;
  image.width = read_number(file);
  image.height = read_number(file);
  const int64_t maximum = read_number(file);
  file.get();  // the one space before the pixels
  const int64_t longest = 65535;
  const bool valid = file && magic[0] == 'P' && magic[1] == '6' && maximum == 255 && image.width > 0 &&
                     image.height > 0 && image.width <= longest && image.height <= longest;
  if (!valid) throw std::runtime_error(path + ": not a binary PPM image with 8 bits per band");
  image.pixels.resize(image.height * image.width * 3);
  if (!file.read(reinterpret_cast<char*>(image.pixels.data()), image.pixels.size()))
    throw std::runtime_error(path + ": the file is shorter than its size says");
  return image;
}

static void write_pgm(const std::string& path, const uint8_t* labels, int64_t height, int64_t width) {
  std::ofstream file(path, std::ios::binary);
  file << "P5\n" << width << ' ' << height << "\n255\n";
  file.write(reinterpret_cast<const char*>(labels), height * width);
  if (!file.flush()) throw std::runtime_error(path + ": cannot be written");
}

static void print_shares(const Ort::Session& session, const uint8_t* labels, int64_t count) {
  Ort::AllocatorWithDefaultOptions allocator;
  const auto names = session.GetModelMetadata().LookupCustomMetadataMapAllocated("danet.classes", allocator);
  if (!names) throw std::runtime_error("the graph has no class names; export it with --preprocessing");
  std::array<int64_t, 256> pixels = {};
  for (int64_t i = 0; i < count; ++i) ++pixels[labels[i]];
  std::istringstream list(names.get());
  std::string name;
  for (int label = 0; label < 256 && std::getline(list, name, ','); ++label)
    if (2000 * pixels[label] >= count) std::printf("%5.1f%%  %s\n", 100.0 * pixels[label] / count, name.c_str());
}

static void segment(const std::filesystem::path& model, const std::string& input, const std::string& output) {
  Image image = read_ppm(input);
  Ort::Env environment(ORT_LOGGING_LEVEL_WARNING, "segment");
  Ort::Session session(environment, model.c_str(), Ort::SessionOptions());

  const std::array<int64_t, 4> shape = {1, image.height, image.width, 3};
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const auto images = Ort::Value::CreateTensor<uint8_t>(memory, image.pixels.data(), image.pixels.size(),
                                                        shape.data(), shape.size());
  const char* inputs[] = {"images"};
  const char* outputs[] = {"labels", "confidence"};
  const auto results = session.Run(Ort::RunOptions(), inputs, &images, 1, outputs, 2);

  const uint8_t* labels = results[0].GetTensorData<uint8_t>();  // 1,H,W
  const float* confidence = results[1].GetTensorData<float>();  // 1,H,W, the probability of each pixel's class
  const int64_t count = image.height * image.width;
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += confidence[i];
  write_pgm(output, labels, image.height, image.width);
  print_shares(session, labels, count);
  std::printf("mean confidence %.3f\n", sum / count);
}

int main(int count, char** arguments) {
  if (count != 4) {
    std::fprintf(stderr, "usage: segment whole.onnx image.ppm labels.pgm\n");
    return 2;
  }
  try {
    segment(arguments[1], arguments[2], arguments[3]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
