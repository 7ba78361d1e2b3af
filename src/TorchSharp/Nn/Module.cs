using System.Reflection;
using TorchSharp.Modules;

namespace TorchSharp;

public static partial class torch
{
    public static partial class nn
    {
        public static Parameter Parameter(Tensor data, bool requires_grad = true) => new(data, requires_grad);

        /// <summary>
        /// A named tree of parameters, buffers and sub-modules. It owns what is registered: registering takes a tensor out
        /// of its <see cref="DisposeScope"/>.
        /// </summary>
        public class Module : IDisposable
        {
            private readonly OrderedDictionary<string, Parameter> _parameters = [];
            private readonly OrderedDictionary<string, (Tensor Tensor, bool Persistent)> _buffers = [];
            private readonly OrderedDictionary<string, Module> _children = [];

            protected Module(string name) => Name = name;

            public virtual bool training { get; private set; } = true;

            protected string Name { get; }

            public virtual string GetName() => Name;

            public virtual void train(bool train = true)
            {
                training = train;
                foreach (Module child in _children.Values)
                {
                    child.train(train);
                }
            }

            public virtual void eval() => train(false);

            public virtual void register_parameter(string name, Parameter param)
            {
                _parameters.Add(name, param);
                param.DetachFromDisposeScope();
            }

            public virtual void register_buffer(string name, Tensor tensor, bool persistent = true)
            {
                _buffers.Add(name, (tensor, persistent));
                tensor.DetachFromDisposeScope();
            }

            public virtual void register_module(string name, Module submodule) => _children.Add(name, submodule);

            public void add_module(string name, Module module) => register_module(name, module);

            /// <summary>Dotted paths, own parameters first, in the order of registration.</summary>
            public virtual IEnumerable<(string name, Parameter parameter)> named_parameters(bool recurse = true) =>
                _parameters.Select(entry => (entry.Key, entry.Value)).Concat(recurse
                    ? InChildren(child => child.named_parameters())
                    : []);

            public virtual IEnumerable<Parameter> parameters(bool recurse = true) =>
                named_parameters(recurse).Select(entry => entry.parameter);

            public virtual IEnumerable<(string name, Tensor buffer)> named_buffers(bool recurse = true, bool include_nonpersistent = true) =>
                _buffers.Where(entry => include_nonpersistent || entry.Value.Persistent)
                    .Select(entry => (entry.Key, entry.Value.Tensor))
                    .Concat(recurse ? InChildren(child => child.named_buffers(true, include_nonpersistent)) : []);

            public virtual IEnumerable<(string name, Module module)> named_children() =>
                _children.Select(entry => (entry.Key, entry.Value));

            public virtual IEnumerable<Module> children() => _children.Values;

            /// <summary>Every descendant, by its dotted path.</summary>
            public virtual IEnumerable<(string name, Module module)> named_modules() =>
                _children.SelectMany(entry => entry.Value.named_modules()
                    .Select(inner => ($"{entry.Key}.{inner.name}", inner.module))
                    .Prepend((entry.Key, entry.Value)));

            public virtual IEnumerable<Module> modules() => named_modules().Select(entry => entry.module);

            public virtual Parameter? get_parameter(string target) =>
                named_parameters().FirstOrDefault(entry => entry.name == target).parameter;

            /// <summary>Parameters and persistent buffers themselves, not copies.</summary>
            public virtual Dictionary<string, Tensor> state_dict()
            {
                var state = new Dictionary<string, Tensor>();
                foreach ((string name, Parameter parameter) in named_parameters())
                {
                    state.Add(name, parameter);
                }
                foreach ((string name, Tensor buffer) in named_buffers(true, include_nonpersistent: false))
                {
                    state.Add(name, buffer);
                }
                return state;
            }

            /// <summary>Copies values in; strict: both must have the same names.</summary>
            public virtual (IList<string> missing_keys, IList<string> unexpected_keys) load_state_dict(
                Dictionary<string, Tensor> source, bool strict = true)
            {
                Dictionary<string, Tensor> own = state_dict();
                List<string> missing = [.. own.Keys.Except(source.Keys)], unexpected = [.. source.Keys.Except(own.Keys)];
                if (strict && missing.Count + unexpected.Count > 0)
                {
                    throw new InvalidOperationException(
                        $"the state does not fit {GetName()}: missing [{string.Join(", ", missing)}], unexpected [{string.Join(", ", unexpected)}]");
                }
                using (no_grad())
                {
                    foreach ((string name, Tensor target) in own.Where(entry => source.ContainsKey(entry.Key)))
                    {
                        target.copy_(source[name]);
                    }
                }
                return (missing, unexpected);
            }

            public virtual void zero_grad(bool set_to_none = true)
            {
                foreach (Parameter parameter in parameters())
                {
                    if (set_to_none)
                    {
                        parameter.grad = null;
                        continue;
                    }
                    using Tensor? grad = parameter.grad;
                    grad?.zero_();
                }
            }

            public virtual Module apply(Action<Module> fn)
            {
                foreach (Module child in _children.Values)
                {
                    child.apply(fn);
                }
                fn(this);
                return this;
            }

            public void Dispose()
            {
                Dispose(true);
                GC.SuppressFinalize(this);
            }

            /// <summary>Converts parameters and buffers in place: the objects stay, so an optimizer keeps them.</summary>
            protected internal virtual void Convert(Device? device, ScalarType? dtype)
            {
                using (no_grad())
                using (NewDisposeScope())
                {
                    foreach (Tensor tensor in parameters().Concat(named_buffers().Select(entry => entry.buffer)))
                    {
                        ScalarType type = tensor.is_floating_point() ? dtype ?? tensor.dtype : tensor.dtype;
                        Extras.TensorExtensions.SetData(tensor, tensor.detach().to(type, device ?? tensor.device));
                        tensor.grad = null;
                    }
                }
            }

            /// <summary>Registers the fields of the derived class that hold modules, parameters and tensors (buffers), by
            /// their names. Fields that were registered by hand are left alone.</summary>
            protected virtual void RegisterComponents()
            {
                foreach (FieldInfo field in GetType().GetFields(BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic))
                {
                    Register(field.Name, field.GetValue(this));
                }
            }

            protected virtual void Dispose(bool disposing)
            {
                foreach (Tensor tensor in _parameters.Values.Concat(_buffers.Values.Select(buffer => buffer.Tensor)))
                {
                    tensor.Dispose();
                }
                foreach (Module child in _children.Values)
                {
                    child.Dispose();
                }
            }

            private void Register(string name, object? value)
            {
                switch (value)
                {
                    case Module module when !_children.ContainsValue(module):
                        register_module(name, module);
                        break;
                    case Parameter parameter when !_parameters.ContainsValue(parameter):
                        register_parameter(name, parameter);
                        break;
                    case Tensor tensor and not Modules.Parameter when _buffers.Values.All(buffer => !ReferenceEquals(buffer.Tensor, tensor)):
                        register_buffer(name, tensor);
                        break;
                }
            }

            private IEnumerable<(string, T)> InChildren<T>(Func<Module, IEnumerable<(string, T)>> select) =>
                _children.SelectMany(entry => select(entry.Value).Select(inner => ($"{entry.Key}.{inner.Item1}", inner.Item2)));
        }

        public abstract class Module<T, TResult>(string name) : Module(name)
        {
            public abstract TResult forward(T input);
            public TResult call(T input) => forward(input);
        }

        public abstract class Module<T1, T2, TResult>(string name) : Module(name)
        {
            public abstract TResult forward(T1 input1, T2 input2);
            public TResult call(T1 input1, T2 input2) => forward(input1, input2);
        }

        public abstract class Module<T1, T2, T3, TResult>(string name) : Module(name)
        {
            public abstract TResult forward(T1 input1, T2 input2, T3 input3);
            public TResult call(T1 input1, T2 input2, T3 input3) => forward(input1, input2, input3);
        }

        public abstract class Module<T1, T2, T3, T4, TResult>(string name) : Module(name)
        {
            public abstract TResult forward(T1 input1, T2 input2, T3 input3, T4 input4);
            public TResult call(T1 input1, T2 input2, T3 input3, T4 input4) => forward(input1, input2, input3, input4);
        }
    }
}

public static class ModuleExtensionMethods
{
    /// <summary>Floating-point parameters and buffers change their dtype; gradients are dropped.</summary>
    public static T to<T>(this T module, torch.ScalarType type) where T : torch.nn.Module => module.to(null, type);

    public static T to<T>(this T module, torch.Device? device, torch.ScalarType? type = null) where T : torch.nn.Module
    {
        module.Convert(device, type);
        return module;
    }

    public static T to<T>(this T module, string device) where T : torch.nn.Module => module.to(new torch.Device(device));

    public static T cpu<T>(this T module) where T : torch.nn.Module => module.to(torch.CPU);

    public static T cuda<T>(this T module, int deviceIndex = -1) where T : torch.nn.Module =>
        module.to(new torch.Device(DeviceType.CUDA, deviceIndex));

    public static T bfloat16<T>(this T module) where T : torch.nn.Module => module.to(torch.ScalarType.BFloat16);

    public static T @float<T>(this T module) where T : torch.nn.Module => module.to(torch.ScalarType.Float32);
}
