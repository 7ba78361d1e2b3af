using System.Runtime.InteropServices;
using static TorchSharp.Native.LibraryLoader;

namespace TorchSharp.Native;

/// <summary>trainer_torch.h, line by line. A status other than 0 is turned into an exception by <see cref="TorchError"/>.</summary>
internal static unsafe partial class NativeMethods
{
    static NativeMethods() => NativeLibrary.SetDllImportResolver(typeof(NativeMethods).Assembly, Resolve);

    [LibraryImport(Library)] internal static partial nint tt_built_version();
    [LibraryImport(Library)] internal static partial nint tt_loaded_version();
    [LibraryImport(Library)] internal static partial nint tt_loaded_path();
    [LibraryImport(Library)] internal static partial nint tt_last_error();
    [LibraryImport(Library)] internal static partial long tt_take_managed_error();

    [LibraryImport(Library)] internal static partial int tt_get_num_threads();
    [LibraryImport(Library)] internal static partial int tt_set_num_threads(int count);
    [LibraryImport(Library)] internal static partial int tt_manual_seed(long seed);
    [LibraryImport(Library)] internal static partial int tt_cuda_device_count(out int count);
    [LibraryImport(Library)] internal static partial int tt_set_deterministic(int enabled, int warnOnly);
    [LibraryImport(Library)] internal static partial int tt_set_allow_tf32(int enabled);

    [LibraryImport(Library)] internal static partial int tt_generator_new(long device, long seed, out nint generator);
    [LibraryImport(Library)] internal static partial int tt_generator_default(long device, out nint generator);
    [LibraryImport(Library)] internal static partial int tt_generator_set_seed(nint generator, long seed);
    [LibraryImport(Library)] internal static partial int tt_generator_get_seed(nint generator, out long seed);
    [LibraryImport(Library)] internal static partial int tt_generator_get_state(nint generator, out nint state);
    [LibraryImport(Library)] internal static partial int tt_generator_set_state(nint generator, nint state);
    [LibraryImport(Library)] internal static partial void tt_generator_free(nint generator);

    [LibraryImport(Library, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int tt_operator_find(string name, string overload, out nint op);

    [LibraryImport(Library)]
    internal static partial int tt_call(nint op, NativeValue* arguments, int argumentCount, NativeValue* outputs, int outputCount);

    [LibraryImport(Library)] internal static partial void tt_tensors_free(nint* tensors);

    [LibraryImport(Library)] internal static partial void tt_tensor_free(nint tensor);
    [LibraryImport(Library)] internal static partial nint tt_tensor_alias(nint tensor);

    [LibraryImport(Library)]
    internal static partial int tt_tensor_from_blob(void* data, long* sizes, int dim, int dtype,
        delegate* unmanaged[Cdecl]<nint, void> release, nint state, out nint tensor);

    [LibraryImport(Library), SuppressGCTransition] internal static partial long tt_tensor_dim(nint tensor);
    [LibraryImport(Library), SuppressGCTransition] internal static partial long tt_tensor_numel(nint tensor);
    [LibraryImport(Library), SuppressGCTransition] internal static partial long tt_tensor_element_size(nint tensor);
    [LibraryImport(Library), SuppressGCTransition] internal static partial int tt_tensor_dtype(nint tensor);
    [LibraryImport(Library), SuppressGCTransition] internal static partial long tt_tensor_device(nint tensor);
    [LibraryImport(Library), SuppressGCTransition] internal static partial void tt_tensor_sizes(nint tensor, long* sizes);
    [LibraryImport(Library), SuppressGCTransition] internal static partial void tt_tensor_strides(nint tensor, long* strides);
    [LibraryImport(Library), SuppressGCTransition] internal static partial long tt_tensor_storage_offset(nint tensor);
    [LibraryImport(Library), SuppressGCTransition] internal static partial int tt_tensor_is_contiguous(nint tensor);
    [LibraryImport(Library), SuppressGCTransition] internal static partial int tt_tensor_requires_grad(nint tensor);
    [LibraryImport(Library)] internal static partial int tt_tensor_is_leaf(nint tensor);
    [LibraryImport(Library)] internal static partial int tt_empty(long* sizes, int dim, int dtype, long device, out nint result);
    [LibraryImport(Library)] internal static partial int tt_product(NativeColumns* c, NativeColumns* a, NativeColumns* b, double alpha, int accumulate);
    [LibraryImport(Library), SuppressGCTransition] internal static partial long tt_tensor_version(nint tensor);
    [LibraryImport(Library), SuppressGCTransition] internal static partial void tt_tensor_bump_version(nint tensor);
    [LibraryImport(Library)] internal static partial int tt_tensor_data_ptr(nint tensor, out nint data);
    [LibraryImport(Library)] internal static partial int tt_tensor_set_requires_grad(nint tensor, int requiresGrad);
    [LibraryImport(Library)] internal static partial int tt_tensor_grad(nint tensor, out nint grad);
    [LibraryImport(Library)] internal static partial int tt_tensor_set_grad(nint tensor, nint grad);
    [LibraryImport(Library)] internal static partial int tt_tensor_retain_grad(nint tensor);
    [LibraryImport(Library)] internal static partial int tt_tensor_set_data(nint tensor, nint source);
    [LibraryImport(Library)] internal static partial int tt_tensor_index(nint tensor, NativeIndex* indices, int count, out nint result);
    [LibraryImport(Library)] internal static partial int tt_tensor_index_put(nint tensor, NativeIndex* indices, int count, nint value);

    [LibraryImport(Library), SuppressGCTransition] internal static partial int tt_has_cuda();
    [LibraryImport(Library)] internal static partial int tt_cuda_current_stream(long device, out nint stream);
    [LibraryImport(Library)] internal static partial int tt_cuda_synchronize();
    [LibraryImport(Library)] internal static partial int tt_cuda_memory(long device, out long allocated, out long peak, out long reserved);
    [LibraryImport(Library)] internal static partial int tt_cuda_reset_peak(long device);
    [LibraryImport(Library)] internal static partial int tt_cuda_empty_cache();
    [LibraryImport(Library)] internal static partial int tt_graph_begin(out nint graph);
    [LibraryImport(Library)] internal static partial int tt_graph_end(nint graph);
    [LibraryImport(Library)] internal static partial int tt_graph_replay(nint graph);
    [LibraryImport(Library)] internal static partial void tt_graph_free(nint graph);
    [LibraryImport(Library)] internal static partial int tt_set_attention_backends(int flash, int memoryEfficient, int cudnn, int math);

    [LibraryImport(Library), SuppressGCTransition] internal static partial int tt_grad_mode();
    [LibraryImport(Library), SuppressGCTransition] internal static partial void tt_set_grad_mode(int enabled);
    [LibraryImport(Library), SuppressGCTransition] internal static partial int tt_inference_mode();
    [LibraryImport(Library)] internal static partial nint tt_inference_guard_new(int enabled);
    [LibraryImport(Library)] internal static partial void tt_inference_guard_free(nint guard);

    [LibraryImport(Library)]
    internal static partial int tt_backward(nint* tensors, int tensorCount, nint* gradients, int gradientCount,
        int retainGraph, int createGraph, nint* inputs, int inputCount);

    [LibraryImport(Library)]
    internal static partial int tt_grad(nint* outputs, int outputCount, nint* inputs, int inputCount, nint* gradients,
        int gradientCount, int retainGraph, int createGraph, int allowUnused, nint* results);

    [LibraryImport(Library)] internal static partial int tt_function_apply(NativeFunctionCall* call, nint* results);
    [LibraryImport(Library)] internal static partial int tt_node_saved_count(nint node);
    [LibraryImport(Library)] internal static partial int tt_node_saved(nint node, nint* results);
    [LibraryImport(Library)] internal static partial int tt_node_needs_input_grad(nint node, int input);
    [LibraryImport(Library)] internal static partial long tt_live_nodes();

    [LibraryImport(Library)] internal static partial int tt_has_gloo();

    [LibraryImport(Library, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int tt_store_serve(string host, long timeoutMs, out nint store, out int port);

    [LibraryImport(Library, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int tt_store_connect(string host, int port, long timeoutMs, out nint store);

    [LibraryImport(Library, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int tt_store_meet(nint store, string device, int rank, int worldSize, long timeoutMs);

    [LibraryImport(Library, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int tt_store_set(nint store, string key, byte* value, long length);

    [LibraryImport(Library, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int tt_store_get(nint store, string key, byte* value, long length);

    [LibraryImport(Library)] internal static partial void tt_store_free(nint store);

    [LibraryImport(Library, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int tt_group_new(nint store, string host, int rank, int worldSize, long timeoutMs, out nint group);

    [LibraryImport(Library)] internal static partial int tt_group_all_reduce_sum(nint group, nint tensor);
    [LibraryImport(Library)] internal static partial int tt_group_broadcast(nint group, nint tensor, int root);
    [LibraryImport(Library)] internal static partial int tt_group_barrier(nint group);
    [LibraryImport(Library)] internal static partial void tt_group_free(nint group);
}

/// <summary>tt_columns.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct NativeColumns
{
    public nint Tensor;
    public long First;
    public long Count;
    public int Transposed;
    public int Reserved;
}

/// <summary>tt_value.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct NativeValue
{
    public ValueKind Kind;
    public int Count;
    /// <summary>The union: an integer, the bits of a double, or a pointer.</summary>
    public long Bits;
}

/// <summary>tt_index.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct NativeIndex
{
    public long Kind;
    public long Start;
    public long Stop;
    public long Step;
    public nint Tensor;
}

/// <summary>tt_function_callbacks.</summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct NativeFunctionCallbacks
{
    public delegate* unmanaged[Cdecl]<nint, nint, nint*, int, nint*, int, long> Backward;
    public delegate* unmanaged[Cdecl]<nint, void> Release;
    public delegate* unmanaged[Cdecl]<long, void> ReleaseError;
}

/// <summary>tt_function_call.</summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct NativeFunctionCall
{
    public byte* Name;
    public nint State;
    public NativeFunctionCallbacks* Callbacks;
    public nint* Inputs;
    public nint* Outputs;
    public nint* Saved;
    public nint* NonDifferentiable;
    public nint* Dirty;
    public int InputCount;
    public int OutputCount;
    public int SavedCount;
    public int NonDifferentiableCount;
    public int DirtyCount;
    public int MaterializeGradients;
}
