"""Writes small language models of random weights, for a real llama.cpp to run.

Nothing is learned, yet the output reads as words: the first number of every token's
embedding is the same, and nothing in the layers changes it, so that the first column of
the output matrix is a bias for each token. Words get a high one, single characters and
bytes a low one, and the end of the text whatever a test wants.
"""

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix = NDArray[np.float32]

TEXT = """
a about above across after again air all also and another answer any apple around ask back
bake before begin bell below between bird blue boat book bread bridge bring brown by call
candle carry castle chair child cloud coat cold come cook corn could country dance day
deep door down dream drink early earth east eat egg evening every eye far field find fire
fish flower follow forest friend garden gate give go gold good grass green hand hear high
hill home horse house ice into island keep lake lamp late leaf light listen little long
look make
"""
WORDS = TEXT.split()

CONTEXT = 4096
HEADS = 4
ROOT = 8.0  # the constant first number of each embedding, beside others of about 1
NOISE = 0.15  # of the output matrix: how much the choice of words varies with the context
NEVER = -1000.0  # the bias of what must never be chosen

UNKNOWN, START, END = 0, 1, 2  # ids of the control tokens
NORMAL_TYPE, UNKNOWN_TYPE, CONTROL_TYPE, BYTE_TYPE = 1, 2, 3, 6  # gguf.TokenType

TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def write_model(
    path: Path,
    *,
    end_bias: float = NEVER,
    layers: int = 2,
    width: int = 64,
    context: int = CONTEXT,
    seed: int = 1,
) -> Path:
    """Write a GGUF file of half a megabyte (with the defaults) and return its path.

    Args:
        path: where to; an existing file is written over.
        end_bias: how gladly the model ends its reply, where 0 is as gladly as it writes any
            one word (one token in a hundred), 4 is at nearly every second token, and the
            default means never.
        layers, width: 12 and 1024 make a slow one, of 6 to 40 tokens a second and 480 MB.
        context: tokens that it can take in.
        seed: of the weights.
    """
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    _describe(writer, layers, width, context)
    _add_vocabulary(writer)
    _add_weights(writer, layers, width, end_bias, seed)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="session")
def llamacpp() -> None:
    """Skip where there is no llama.cpp, or fail, where the tests have to be complete."""
    for module in ("xllamacpp", "gguf"):
        if importlib.util.find_spec(module) is None:
            if os.environ.get("CI"):
                pytest.fail(f"{module} is not installed")
            pytest.skip(f"{module} is not installed")


@pytest.fixture(scope="session")
def endless_model(llamacpp: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that never ends a reply by itself."""
    return write_model(tmp_path_factory.mktemp("models") / "endless.gguf")


@pytest.fixture(scope="session")
def brief_model(llamacpp: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that ends its replies after some ten words."""
    return write_model(tmp_path_factory.mktemp("models") / "brief.gguf", end_bias=2.0)


def _describe(writer: "object", layers: int, width: int, context: int) -> None:
    import gguf

    assert isinstance(writer, gguf.GGUFWriter)
    writer.add_name("random words")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(2 * width)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(width // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_chat_template(TEMPLATE)


def vocabulary() -> list[tuple[str, int]]:
    """All tokens with their types: control, one per byte, one per ASCII character, words."""
    control = [("<unk>", UNKNOWN_TYPE), ("<s>", CONTROL_TYPE), ("</s>", CONTROL_TYPE)]
    single_bytes = [(f"<0x{byte:02X}>", BYTE_TYPE) for byte in range(256)]
    characters = [("\u2581", NORMAL_TYPE)]  # how this tokenizer writes a space
    characters += [(chr(code), NORMAL_TYPE) for code in range(0x21, 0x7F)]
    words = [(f"\u2581{word}", NORMAL_TYPE) for word in WORDS if len(word) > 1]
    return control + single_bytes + characters + words


def _add_vocabulary(writer: "object") -> None:
    import gguf

    assert isinstance(writer, gguf.GGUFWriter)
    tokens = vocabulary()
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_scores([-float(rank) for rank in range(len(tokens))])
    writer.add_token_types([kind for _, kind in tokens])
    writer.add_bos_token_id(START)
    writer.add_eos_token_id(END)
    writer.add_unk_token_id(UNKNOWN)
    writer.add_add_bos_token(True)


def _add_weights(writer: "object", layers: int, width: int, end_bias: float, seed: int) -> None:
    import gguf
    import numpy as np

    assert isinstance(writer, gguf.GGUFWriter)
    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> "Matrix":
        scale = 1 / np.sqrt(columns)
        weights = random.standard_normal((rows, columns), dtype=np.float32)
        return weights * np.float32(scale)

    def keeping_root(rows: int, columns: int) -> "Matrix":
        weights = matrix(rows, columns)
        weights[0] = 0
        return weights

    tokens = vocabulary()
    embedding = random.standard_normal((len(tokens), width), dtype=np.float32)
    embedding[:, 0] = ROOT
    ones = np.ones(width, dtype=np.float32)
    writer.add_tensor("token_embd.weight", embedding)
    for layer in range(layers):
        prefix = f"blk.{layer}."
        writer.add_tensor(prefix + "attn_norm.weight", ones)
        for name in ("attn_q", "attn_k", "attn_v"):
            writer.add_tensor(f"{prefix}{name}.weight", matrix(width, width))
        writer.add_tensor(prefix + "attn_output.weight", keeping_root(width, width))
        writer.add_tensor(prefix + "ffn_norm.weight", ones)
        writer.add_tensor(prefix + "ffn_gate.weight", matrix(2 * width, width))
        writer.add_tensor(prefix + "ffn_up.weight", matrix(2 * width, width))
        writer.add_tensor(prefix + "ffn_down.weight", keeping_root(width, 2 * width))
    writer.add_tensor("output_norm.weight", ones)
    writer.add_tensor("output.weight", _output(tokens, width, end_bias, random))


def _output(
    tokens: list[tuple[str, int]], width: int, end_bias: float, random: "np.random.Generator"
) -> "Matrix":
    import numpy as np

    noise = NOISE * np.sqrt(64 / width)
    weights = random.standard_normal((len(tokens), width), dtype=np.float32) * np.float32(noise)
    words = np.array([text.startswith("\u2581") and len(text) > 1 for text, _ in tokens])
    bias = np.where(words, 0.0, NEVER)
    bias[END] = end_bias
    # What the root has become after the last norm: the layers add about as much as is there.
    root = ROOT / np.sqrt((ROOT**2 + 2 * width) / width)
    weights[:, 0] = bias / root
    weights[END, 1:] = 0
    return weights
