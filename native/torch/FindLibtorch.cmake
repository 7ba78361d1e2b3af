# Finds libtorch: $TRAINER_LIBTORCH, else the active python3's torch, else the system's (Debian's libtorch-dev).
# Defines the imported target `libtorch` and LIBTORCH_VERSION, LIBTORCH_CXX_STANDARD, LIBTORCH_HAS_CUDA. libtorch's own TorchConfig.cmake
# is not used: it asks for a CUDA toolkit, protobuf and others that a user of the C++ headers does not need.

if(DEFINED ENV{TRAINER_LIBTORCH})
    set(libtorch_root $ENV{TRAINER_LIBTORCH})
    set(libtorch_source "TRAINER_LIBTORCH")
else()
    execute_process(
        COMMAND python3 -c "import os, torch; print(os.path.dirname(torch.__file__))"
        OUTPUT_VARIABLE libtorch_root OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    set(libtorch_source "python3's torch")
    if(NOT libtorch_root)
        set(libtorch_root /usr)
        set(libtorch_source "the system")
    endif()
endif()

set(libtorch_include ${libtorch_root}/include)
if(NOT EXISTS ${libtorch_include}/torch/csrc/autograd/custom_function.h)
    message(FATAL_ERROR "No libtorch headers under ${libtorch_include} (from ${libtorch_source}). Install libtorch-dev, "
        "or set TRAINER_LIBTORCH to a libtorch directory (the one that holds include/ and lib/).")
endif()

file(STRINGS ${libtorch_include}/torch/csrc/api/include/torch/version.h version_lines REGEX "TORCH_VERSION_M[A-Z]+ [0-9]+")
if(NOT version_lines)
    file(STRINGS ${libtorch_include}/torch/headeronly/version.h version_lines REGEX "TORCH_VERSION_M[A-Z]+ [0-9]+")
endif()
string(REGEX MATCH "MAJOR ([0-9]+)" _ "${version_lines}")
set(LIBTORCH_VERSION ${CMAKE_MATCH_1})
string(REGEX MATCH "MINOR ([0-9]+)" _ "${version_lines}")
string(APPEND LIBTORCH_VERSION .${CMAKE_MATCH_1})
if(LIBTORCH_VERSION VERSION_GREATER_EQUAL 2.4)
    set(LIBTORCH_CXX_STANDARD 20)
else()
    set(LIBTORCH_CXX_STANDARD 17)
endif()

foreach(name torch_cpu c10)
    find_library(libtorch_${name} ${name} PATHS ${libtorch_root}/lib ${libtorch_root}/lib/x86_64-linux-gnu
        NO_DEFAULT_PATH NO_CACHE REQUIRED)
endforeach()
get_filename_component(libtorch_lib ${libtorch_torch_cpu} DIRECTORY)
find_library(libtorch_torch_cuda torch_cuda PATHS ${libtorch_lib} NO_DEFAULT_PATH NO_CACHE)
find_library(libtorch_c10_cuda c10_cuda PATHS ${libtorch_lib} NO_DEFAULT_PATH NO_CACHE)

# Old wheels were built with the C++ ABI before C++11; TorchConfig.cmake says which.
file(GLOB_RECURSE torch_config ${libtorch_root}/share/cmake/Torch/TorchConfig.cmake
    ${libtorch_lib}/cmake/Torch/TorchConfig.cmake)
set(cxx11_abi 1)
foreach(config ${torch_config})
    file(STRINGS ${config} abi_line REGEX "_GLIBCXX_USE_CXX11_ABI=0")
    if(abi_line)
        set(cxx11_abi 0)
    endif()
endforeach()

add_library(libtorch INTERFACE)
target_include_directories(libtorch SYSTEM INTERFACE ${libtorch_include} ${libtorch_include}/torch/csrc/api/include)
target_compile_definitions(libtorch INTERFACE _GLIBCXX_USE_CXX11_ABI=${cxx11_abi})
target_link_libraries(libtorch INTERFACE ${libtorch_torch_cpu} ${libtorch_c10})
set(LIBTORCH_HAS_CUDA 0)
if(libtorch_torch_cuda)
    # Loading it registers the CUDA kernels.
    target_link_libraries(libtorch INTERFACE -Wl,--no-as-needed ${libtorch_torch_cuda} -Wl,--as-needed ${libtorch_c10_cuda})
    if(TN_CUDA)
        # Headers only: libtorch brings the CUDA runtime that it was built with.
        find_package(CUDAToolkit 12.1 REQUIRED)
        target_include_directories(libtorch SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS})
        set(LIBTORCH_HAS_CUDA 1)
    endif()
elseif(TN_CUDA)
    message(FATAL_ERROR "libtorch ${LIBTORCH_VERSION} in ${libtorch_lib} was built without CUDA. Set TRAINER_LIBTORCH to one with CUDA, "
        "or configure with the preset cpu.")
endif()
if(TN_CUDA AND LIBTORCH_VERSION VERSION_LESS 2.4)
    message(FATAL_ERROR "libtorch ${LIBTORCH_VERSION} in ${libtorch_lib} is too old for GPUs: 2.4 or later is needed.")
endif()
target_link_options(libtorch INTERFACE -Wl,-rpath,${libtorch_lib})

message(STATUS "libtorch ${LIBTORCH_VERSION} from ${libtorch_source}: ${libtorch_lib}")
