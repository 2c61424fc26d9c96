"""vLLM and Hugging Face on one prompt with two images of odd shapes. `python -m tests.vllm_beside_hf MODEL`.

Prints one line of JSON: how far the log-probabilities of the next token are apart, over all tokens of the vocabulary.
"""

import json
import os
import sys
from pathlib import Path

os.environ |= {
    "TORCH_COMPILE_DISABLE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "1",
}  # fmt: skip


def main() -> None:
    import torch
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from vllm import LLM, SamplingParams

    from agent.chat_formats import format_of_folder

    folder = sys.argv[1]
    processor, picture = AutoProcessor.from_pretrained(folder), format_of_folder(Path(folder)).image(1)
    images = [Image.effect_noise((150, 70), 90).convert("RGB"), Image.effect_noise((40, 100), 90).convert("RGB")]
    text = f"look at {picture} and at {picture}, then say"
    inputs = processor(text=[text], images=images, return_tensors="pt")
    model = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="sdpa", dtype=torch.float32)
    with torch.no_grad():
        expected = model(**inputs).logits[0, -1].log_softmax(-1)
    engine = LLM(
        folder, dtype="float32", enforce_eager=True, distributed_executor_backend="uni", max_model_len=512, max_num_seqs=4,
        limit_mm_per_prompt={"image": 4, "video": 0}, max_logprobs=len(expected),
    )  # fmt: skip
    prompt = {
        "prompt_token_ids": processor.tokenizer(text, add_special_tokens=False)["input_ids"],
        "multi_modal_data": {"image": images},
    }
    wanted = SamplingParams(max_tokens=1, logprobs=len(expected), temperature=0)
    (output,) = engine.generate([prompt], wanted, use_tqdm=False)
    (found,) = output.outputs[0].logprobs
    facts = {
        "tokens": len(output.prompt_token_ids),
        "expected_tokens": inputs["input_ids"].shape[1],
        "compared": len(found),
        "apart": max(abs(entry.logprob - expected[token].item()) for token, entry in found.items()),
    }
    sys.stdout.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
