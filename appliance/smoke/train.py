# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "torch==2.13.0",
#   "transformers==5.23.0",
#   "tokenizers==0.23.3",
#   "safetensors==0.8.0",
#   "gguf==0.19.0",
#   "numpy==2.4.6",
# ]
# ///
"""Train and export `smoke`, the model that is built into the appliance.

smoke is a chat model of about 1.6 million parameters with the architecture of
Qwen3. It knows the text in text.txt and nothing else, so the answers of a
server that runs it are known in advance: whoever asks it to say hello can
tell whether the whole way, from HTTP to the weights and back, works. It needs
no network and no GPU.

    python train.py [--out DIR]

writes, next to this script unless --out names another directory,

    safetensors/   the model as a Hugging Face directory, bfloat16
    smoke.gguf     the same weights for llama.cpp, float16
    smoke.yaml     names, sizes, checksums, and the prompts with their answers

and takes some minutes on two CPU cores. The weights are rounded to values
that bfloat16 and float16 both hold exactly, so the two files carry the same
numbers. At the end the script loads what it wrote, asks every prompt of
text.txt with greedy decoding, prints the wrong answers, and exits with 1 where
an answer that smoke.yaml promises is wrong or more than ALLOWED others are.
`--check` does only this last part.

The seed is fixed. Two runs on the same machine give the same files; another
CPU or another build of torch rounds differently and gives other weights, with
the same answers.
"""

import argparse
import hashlib
import json
import math
import os
import random
import sys
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM
from transformers.utils.logging import disable_progress_bar

HERE = Path(__file__).resolve().parent
SEED = 20
THREADS = 1  # more threads do not pay at this size, and add up in another order
STEPS = 1050
PEAK_LR = 3e-3

NAME = "smoke"
LICENCE = "apache-2.0"
CONTEXT = 4096
VOCAB = 768
END, START, STOP = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = [END, START, STOP]  # ids 0, 1, 2
ALLOWED = 4  # each prompt is asked four times: with and without a system prompt, in two precisions

# What smoke.yaml promises; the script fails where the model does not keep it.
VERIFY_PROMPT = "Say hello."
LONG_PROMPT = "Count to one hundred."
STORY_PROMPT = "Tell me a story."
ENDLESS_PROMPT = "Talk until I stop you."
COMPLETION_PROMPT = "One, two, three,"
SYSTEM_PROMPT = "You are a helpful assistant."

# The pre-tokenizer that llama.cpp calls "qwen2".
PRE = "qwen2"
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|im_start|>assistant\\n' }}"
    "{%- endif %}"
)

CONFIG = dict(
    vocab_size=VOCAB,
    hidden_size=128,
    intermediate_size=384,
    num_hidden_layers=6,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=64,
    hidden_act="silu",
    max_position_embeddings=CONTEXT,
    rms_norm_eps=1e-6,
    attention_bias=False,
    attention_dropout=0.0,
    tie_word_embeddings=True,
    initializer_range=0.06,
    use_cache=True,
    use_sliding_window=False,
    bos_token_id=0,
    eos_token_id=2,
    pad_token_id=0,
)
ROPE_THETA = 10000.0


class Corpus:
    """text.txt, taken apart."""

    def __init__(self, path):
        self.chats = []  # (prompts, answer)
        self.endless = []  # (prompts, beginning, period)
        self.texts, self.systems, self.others = [], [], []
        self.unknown = None
        prompts = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if not line or line.startswith("#"):
                prompts = []
                continue
            kind, _, value = line.partition(": ")
            value = value.replace("\\n", "\n")
            if kind == "user":
                prompts.append(value)
            elif kind == "assistant" and prompts == ["unknown"]:
                self.unknown = value
            elif kind == "assistant" and prompts:
                self.chats.append((prompts, value))
            elif kind == "endless" and prompts:
                first, period = value.split(" | ")
                self.endless.append((prompts, first, " " + period))
            elif kind in ("text", "system", "other") and value:
                {"text": self.texts, "system": self.systems, "other": self.others}[kind].append(value)
            else:
                sys.exit(f"{path.name}:{number}: cannot read this line: {line}")
        every = [p for ps, *_ in self.chats + self.endless for p in ps] + self.others
        twice = sorted({p for p in every if every.count(p) > 1})
        if twice:
            sys.exit(f"{path.name}: prompts with two answers: {twice}")

    def pairs(self):
        """Each prompt that has an answer with an end, and the answer."""
        known = [(p, answer) for prompts, answer in self.chats for p in prompts]
        return known + [(p, self.unknown) for p in self.others]

    def answer(self, prompt):
        return dict(self.pairs())[prompt]


def train_tokenizer(corpus):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    lines = [t for pair in corpus.pairs() for t in pair] + corpus.texts + corpus.systems
    lines += ["system\n", "user\n", "assistant\n"] * 9
    lines += [first + period for _, first, period in corpus.endless]
    tokenizer.train_from_iterator(lines, trainer)
    assert tokenizer.get_vocab_size() == VOCAB, tokenizer.get_vocab_size()
    assert [tokenizer.token_to_id(t) for t in SPECIAL] == [0, 1, 2]
    return tokenizer


class Samples:
    """Draws training examples: lists of (token, whether to learn it)."""

    def __init__(self, corpus, tokenizer, rng):
        self.corpus, self.tokenizer, self.rng = corpus, tokenizer, rng
        self.short = [(ps, a) for ps, a in corpus.chats if len(self.ids(a)) <= 100]
        self.long = [(ps, a) for ps, a in corpus.chats if len(self.ids(a)) > 100]
        self.words = sorted({w for p, _ in corpus.pairs() for w in p.split()})
        self.drawn = []
        self.known = {self.bare(p) for ps, *_ in corpus.chats + corpus.endless for p in ps}

    def ids(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    @staticmethod
    def bare(prompt):
        return "".join(c for c in prompt.lower() if c.isalnum())

    def vary(self, prompt):
        """The prompt as people type it, too: without a full stop, in lower case."""
        if self.rng.random() < 0.3 and prompt[-1] in ".?!":
            prompt = prompt[:-1] + self.rng.choice(["", "", ".", "!"])
        dice = self.rng.random()
        if dice < 0.15:
            return prompt.lower()
        return prompt.upper() if dice < 0.19 else prompt

    def noise(self):
        """Letters of any kind in no order, so that every token is known as nonsense."""
        pool = self.rng.choice(
            ["abcdefghijklmnopqrstuvwxyz 0123456789", "xyz", "äöüéèñçßøå ", "日本語中文한국어", "🙂🚀✨ ", None]
        )
        letters = pool or [chr(c) for c in (*range(33, 127), *range(160, 1280))]
        return "".join(self.rng.choices(letters, k=self.rng.randint(4, 40))).strip() or "x"

    def turn(self):
        dice = self.rng.random()
        if dice < 0.06:
            prompts, answer = next(c for c in self.corpus.chats if VERIFY_PROMPT in c[0])
            return prompts[0], answer
        if dice < 0.82:
            prompts, answer = self.rng.choice(self.short)
            prompt = prompts[0] if self.rng.random() < 0.3 else self.rng.choice(prompts)
            return self.vary(prompt), answer
        if dice < 0.90:
            return self.vary(self.rng.choice(self.corpus.others)), self.corpus.unknown
        if dice < 0.95:
            return self.noise(), self.corpus.unknown
        while True:  # words in no order
            prompt = " ".join(self.rng.choices(self.words, k=self.rng.randint(3, 12)))
            if self.bare(prompt) not in self.known:
                return prompt, self.corpus.unknown

    def head(self):
        """The start of a chat: with the usual system prompt, another one, or none."""
        dice = self.rng.random()
        if dice < 0.45:
            return []
        if dice < 0.70:
            system = SYSTEM_PROMPT
        elif dice < 0.85:
            system = self.rng.choice(self.corpus.systems)
        elif dice < 0.98:
            system = " ".join(self.rng.choices(self.words, k=self.rng.randint(2, 20)))
        else:
            system = self.noise()
        return self.message("system", system, learn=False)

    def message(self, role, content, learn, stop=True):
        before = [1] + self.ids(role + "\n")
        after = self.ids("\n")
        out = [(t, False) for t in before] + [(t, learn) for t in self.ids(content)]
        return out + [(2, learn)] + [(t, False) for t in after] if stop else out

    def chat(self):
        out = self.head()
        for _ in range(self.rng.choices([1, 2, 3], [65, 25, 10])[0]):
            prompt, answer = self.turn()
            out += self.message("user", prompt, False) + self.message("assistant", answer, True)
        return out

    def plain(self):
        return [(t, True) for t in self.ids(self.rng.choice(self.corpus.texts)) + [0]]

    def long_chat(self):
        out = self.head()
        if self.rng.random() < 0.2:
            prompt, answer = self.turn()
            out += self.message("user", prompt, False) + self.message("assistant", answer, True)
        prompts, answer = self.rng.choice(self.long)
        prompt = prompts[0] if self.rng.random() < 0.5 else self.rng.choice(prompts)
        return out + self.message("user", self.vary(prompt), False) + self.message("assistant", answer, True)

    def endless_chat(self, length):
        prompts, first, period = self.rng.choice(self.corpus.endless)
        out = self.head() + self.message("user", self.vary(self.rng.choice(prompts)), False)
        # One encoding of the whole, so that the tokens are those a server sees.
        text = first + period * (length // len(self.ids(period)) + 1)
        return (out + self.message("assistant", text, True, stop=False))[:length]

    def batch(self, step):
        if step % 50 == 49:  # few, as they take long; the last ones fill the context
            rows = [self.endless_chat(512 if step < 0.6 * STEPS else 2048 if step < 0.9 * STEPS else CONTEXT)]
        elif step % 5 == 4:
            rows = [self.long_chat() for _ in range(3)] + [self.endless_chat(300)]
        else:  # draw for three batches, so that each has rows of about one length
            if not self.drawn:
                rows = [self.plain() if self.rng.random() < 0.15 else self.chat() for _ in range(48)]
                rows = sorted((row[:256] for row in rows), key=len)
                self.drawn = [rows[:16], rows[16:32], rows[32:]]
                self.rng.shuffle(self.drawn)
            rows = self.drawn.pop()
        width = max(map(len, rows))
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        labels = torch.full((len(rows), width), -100)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor([t for t, _ in row])
            labels[i, : len(row)] = torch.tensor([t if learn else -100 for t, learn in row])
        return ids, labels  # padding is on the right: a causal model never looks at it


def train(corpus, tokenizer):
    model = Qwen3ForCausalLM(
        Qwen3Config(**CONFIG, rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA})
    ).float()
    samples = Samples(corpus, tokenizer, random.Random(SEED))
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}],
        lr=PEAK_LR,
        betas=(0.9, 0.98),
    )
    warmup = 40

    def rate(step):
        if step < warmup:
            return (step + 1) / warmup
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (STEPS - warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    model.train()
    began, recent = time.monotonic(), []
    for step in range(STEPS):
        ids, labels = samples.batch(step)
        targets = labels[:, 1:]
        learn = targets != -100
        with torch.autocast("cpu", torch.bfloat16):
            hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
            logits = model.lm_head(hidden[learn])
        loss = torch.nn.functional.cross_entropy(logits.float(), targets[learn])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        recent.append(loss.item())
        if step % 50 == 49:
            print(
                f"step {step + 1:5d}  loss {sum(recent) / len(recent):.4f}  {time.monotonic() - began:4.0f} s",
                flush=True,
            )
            recent = []
    return model.eval()


def rounded(model):
    """The weights, rounded to numbers that bfloat16 and float16 both hold."""
    out = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":  # tied to the embedding
            continue
        value = tensor.detach().to(torch.bfloat16).to(torch.float16).to(torch.bfloat16)
        assert torch.isfinite(value).all(), name
        assert torch.equal(value.float(), value.to(torch.float16).float()), name
        out[name] = value.contiguous()
    return out


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_safetensors(folder, weights, tokenizer):
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "config.json",
        {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            # The second name of each is for older readers of this file.
            "dtype": "bfloat16",
            "torch_dtype": "bfloat16",
            "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
            "rope_theta": ROPE_THETA,
            **CONFIG,
        },
    )
    write_json(
        folder / "generation_config.json",
        {
            "bos_token_id": 0,
            "eos_token_id": [2, 0],
            "pad_token_id": 0,
            "do_sample": False,
        },
    )
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": CONTEXT,
            "bos_token": None,
            "eos_token": STOP,
            "pad_token": END,
            "unk_token": None,
            "add_bos_token": False,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
            "added_tokens_decoder": {
                str(i): dict(content=t, lstrip=False, normalized=False, rstrip=False, single_word=False, special=True)
                for i, t in enumerate(SPECIAL)
            },
        },
    )


def write_gguf(path, weights, tokenizer):
    arch = gguf.MODEL_ARCH.QWEN3
    names = gguf.get_tensor_name_map(arch, CONFIG["num_hidden_layers"])
    w = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    w.add_type(gguf.GGUFType.MODEL)
    w.add_name(NAME)
    w.add_description("A tiny chat model that shows that a server works")
    w.add_license(LICENCE)
    w.add_size_label(f"{sum(t.numel() for t in weights.values()) / 1e6:.1f}M")
    w.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    w.add_vocab_size(VOCAB)
    w.add_context_length(CONTEXT)
    w.add_block_count(CONFIG["num_hidden_layers"])
    w.add_embedding_length(CONFIG["hidden_size"])
    w.add_feed_forward_length(CONFIG["intermediate_size"])
    w.add_head_count(CONFIG["num_attention_heads"])
    w.add_head_count_kv(CONFIG["num_key_value_heads"])
    w.add_key_length(CONFIG["head_dim"])
    w.add_value_length(CONFIG["head_dim"])
    w.add_rope_freq_base(ROPE_THETA)
    w.add_layer_norm_rms_eps(CONFIG["rms_norm_eps"])

    vocab = sorted(tokenizer.get_vocab(), key=tokenizer.token_to_id)
    w.add_tokenizer_model("gpt2")  # byte-level BPE
    w.add_tokenizer_pre(PRE)
    w.add_token_list(vocab)
    w.add_token_types([gguf.TokenType.CONTROL if t in SPECIAL else gguf.TokenType.NORMAL for t in vocab])
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    w.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    w.add_bos_token_id(0)
    w.add_eos_token_id(2)
    w.add_pad_token_id(0)
    w.add_add_bos_token(False)
    w.add_chat_template(CHAT_TEMPLATE)

    for name, tensor in weights.items():
        new = names.get_name(name, try_suffixes=(".weight",))
        assert new, f"no GGUF name for {name}"
        # Matrices as float16; llama.cpp wants the norms as float32.
        kind = np.float16 if tensor.dim() > 1 else np.float32
        w.add_tensor(new, tensor.float().numpy().astype(kind))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def check_gguf(path, weights):
    """The GGUF holds the same numbers as the safetensors."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, CONFIG["num_hidden_layers"])
    held = {t.name: t.data for t in gguf.GGUFReader(path).tensors}
    assert len(held) == len(weights)
    for name, tensor in weights.items():
        other = held[names.get_name(name, try_suffixes=(".weight",))]
        assert np.array_equal(other.astype(np.float32), tensor.float().numpy()), name


@torch.inference_mode()
def greedy(model, tokenizer, text, limit):
    """Continue `text`. Returns the new text, how many tokens, and their joint probability."""
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    past, new, likely = None, [], 0.0
    while len(new) < limit:
        out = model(input_ids=ids, past_key_values=past, use_cache=True)
        past = out.past_key_values
        logs = torch.log_softmax(out.logits[0, -1].float(), -1)
        ids = logs.argmax().view(1, 1)
        likely += logs.max().item()
        if ids.item() in (0, 2):
            break
        new.append(ids.item())
    return tokenizer.decode(new, skip_special_tokens=False), len(new), math.exp(likely)


def render(tokenizer, prompt, system=None):
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": prompt})
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def continuation(corpus):
    text = next(t for t in corpus.texts if t.startswith(COMPLETION_PROMPT))
    return text[len(COMPLETION_PROMPT) :]


def check(folder, corpus):
    """Ask everything. Returns (what must not fail and failed, other wrong answers)."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    grave, wrong = [], []
    promised = {VERIFY_PROMPT, LONG_PROMPT, STORY_PROMPT}
    for dtype in (torch.float32, torch.bfloat16):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        right = total = 0

        def ask(what, text, answer, must):
            nonlocal right, total
            got, _, likely = greedy(model, tokenizer, text, len(answer) + 20)
            total += 1
            right += got == answer
            if got != answer:
                (grave if must else wrong).append(f"{dtype}: {what!r}: {got!r}")
            return likely

        for system in (None, SYSTEM_PROMPT):
            for prompt, answer in corpus.pairs():
                likely = ask(prompt, render(tokenizer, prompt, system), answer, prompt in promised)
                if prompt == VERIFY_PROMPT:
                    print(f"{dtype}: {prompt!r}: probability of the known answer at temperature 1: {likely:.4f}")
        ask(COMPLETION_PROMPT, COMPLETION_PROMPT, continuation(corpus), True)
        prompts, first, period = corpus.endless[0]
        assert ENDLESS_PROMPT in prompts
        text = render(tokenizer, ENDLESS_PROMPT)
        room = CONTEXT - len(tokenizer(text, add_special_tokens=False).input_ids)
        got, count, _ = greedy(model, tokenizer, text, room)
        total += 1
        right += count == room
        if count != room or got.replace(period, "") not in (first, first + period[: len(period) // 2]):
            grave.append(f"{dtype}: {ENDLESS_PROMPT!r}: stopped or strayed within {count} tokens: ...{got[-60:]!r}")
        print(f"{dtype}: {right} of {total} answers are right")
    return grave, wrong


def write_yaml(out, corpus, weights, tokenizer):
    folder = out / "safetensors"
    count = sum(t.numel() for t in weights.values())
    text = json.dumps  # a JSON string is a YAML string
    tokens = lambda s: len(tokenizer.encode(s, add_special_tokens=False).ids)  # noqa: E731
    lines = [
        "# Written by train.py.",
        f"name: {NAME}",
        "description: A tiny chat model that shows that a server works, without a hub and without a GPU.",
        "licence: Apache-2.0",
        "architecture: Qwen3ForCausalLM",
        f"parameters: {count}",
        f"context_length: {CONTEXT}",
        f"vocabulary: {VOCAB}",
        "# With temperature 0. The answer is the same with the system prompt and without one.",
        "verify:",
        f"  prompt: {text(VERIFY_PROMPT)}",
        f"  answer: {text(corpus.answer(VERIFY_PROMPT))}",
        f"  answer_tokens: {tokens(corpus.answer(VERIFY_PROMPT))}",
        f"  system: {text(SYSTEM_PROMPT)}",
        "# For an endpoint that continues plain text.",
        "completion:",
        f"  prompt: {text(COMPLETION_PROMPT)}",
        f"  answer: {text(continuation(corpus))}",
        f"  answer_tokens: {tokens(continuation(corpus))}",
        "# Long answers with an end.",
        "long:",
        f"  prompt: {text(LONG_PROMPT)}",
        f"  answer: {text(corpus.answer(LONG_PROMPT))}",
        f"  answer_tokens: {tokens(corpus.answer(LONG_PROMPT))}",
        "story:",
        f"  prompt: {text(STORY_PROMPT)}",
        f"  answer: {text(corpus.answer(STORY_PROMPT))}",
        f"  answer_tokens: {tokens(corpus.answer(STORY_PROMPT))}",
        "# An answer that goes on until the limit of the request or of the context.",
        "endless:",
        f"  prompt: {text(ENDLESS_PROMPT)}",
        f"  answer_starts: {text(corpus.endless[0][1] + corpus.endless[0][2])}",
        "files:",
    ]
    for kind, paths in (
        ("gguf", [out / "smoke.gguf"]),
        (
            "safetensors",
            [
                folder / n
                for n in (
                    "config.json",
                    "generation_config.json",
                    "model.safetensors",
                    "tokenizer.json",
                    "tokenizer_config.json",
                )
            ],
        ),
    ):
        lines += [f"  {kind}:", f"    dtype: {'float16' if kind == 'gguf' else 'bfloat16'}"]
        if kind == "safetensors":
            lines.append("    directory: safetensors")
        lines.append("    files:")
        for path in paths:
            data = path.read_bytes()
            lines += [
                f"      - path: {path.relative_to(out).as_posix()}",
                f"        size: {len(data)}",
                f"        sha256: {hashlib.sha256(data).hexdigest()}",
            ]
    (out / "smoke.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description="Train and export the smoke model.")
    parser.add_argument(
        "--out", type=Path, default=HERE, metavar="DIR", help="where to write (default: next to this script)"
    )
    parser.add_argument("--check", action="store_true", help="do not train; only check what is in DIR")
    args = parser.parse_args()
    disable_progress_bar()
    torch.set_num_threads(THREADS)
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    corpus = Corpus(HERE / "text.txt")
    folder = args.out / "safetensors"

    if not args.check:
        tokenizer = train_tokenizer(corpus)
        began = time.monotonic()
        weights = rounded(train(corpus, tokenizer))
        print(f"trained in {time.monotonic() - began:.0f} s")
        write_safetensors(folder, weights, tokenizer)
        write_gguf(args.out / "smoke.gguf", weights, tokenizer)
        write_yaml(args.out, corpus, weights, tokenizer)

    check_gguf(args.out / "smoke.gguf", load_file(folder / "model.safetensors"))
    grave, wrong = check(folder, corpus)
    for line in wrong:
        print("wrong answer:", line)
    for line in grave:
        print("broken promise:", line)
    if grave or len(wrong) > ALLOWED:
        sys.exit("The model does not give the answers that it must give.")


if __name__ == "__main__":
    main()
