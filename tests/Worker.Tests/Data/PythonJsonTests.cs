using System.Text.Json;
using Trainer.Worker.Data;

namespace Trainer.Worker.Tests.Data;

public sealed class PythonJsonTests
{
    /// <summary>Expected: json.dumps(json.loads(text), ensure_ascii=False) of Python.</summary>
    [Theory]
    [InlineData("""{"b":[1,2],"a":{"x":null,"y":true}}""", """{"b": [1, 2], "a": {"x": null, "y": true}}""")]
    [InlineData("""{"a":1,"b":2,"a":3}""", """{"a": 3, "b": 2}""")]
    [InlineData("[]", "[]")]
    [InlineData("{}", "{}")]
    [InlineData("\"\\u00e9\\/\\u0001\\n\\t\\\"\\\\\\u007f\"", "\"é/\\u0001\\n\\t\\\"\\\\\u007f\"")]
    [InlineData("-0", "0")]
    [InlineData("123456789012345678901234567890", "123456789012345678901234567890")]
    [InlineData("1.0", "1.0")]
    [InlineData("1E2", "100.0")]
    [InlineData("-0.0", "-0.0")]
    [InlineData("0.1", "0.1")]
    [InlineData("1e16", "1e+16")]
    [InlineData("1e15", "1000000000000000.0")]
    [InlineData("0.0001", "0.0001")]
    [InlineData("0.00001", "1e-05")]
    [InlineData("1.5e300", "1.5e+300")]
    [InlineData("123456.789", "123456.789")]
    [InlineData("12345678901234567890.5", "1.2345678901234567e+19")]
    [InlineData("5e-324", "5e-324")]
    [InlineData("1e999", "Infinity")]
    public void Json_is_spelled_as_python_spells_it(string json, string expected) =>
        Assert.Equal(expected, PythonJson.Write(JsonDocument.Parse(json).RootElement));
}
