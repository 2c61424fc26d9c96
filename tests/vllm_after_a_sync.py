"""vLLM with the weights that verl's engine hands out. `python -m tests.vllm_after_a_sync MODEL`.

Prints one line of JSON: how far the log-probabilities of two rows of text and one with two images are from the engine's, and
how they correlate, while vLLM has dummy weights; after a reload as vLLM does it; and after ours, with the weights as they were
and moved.
"""

import json
import os
import sys

os.environ |= {
    "TORCH_COMPILE_DISABLE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "1", "VERL_PLATFORM": "cpu",
    "VERL_USE_EXTERNAL_MODULES": "reinforcement_learning.verl_adapter.plugin",
    "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1",
}  # fmt: skip

import torch
import torch.distributed

from serving.processes import free_port
from tests.engine_rank import batch_of, build_engine, log_probs_of, rows_of, text_with_two_images, two_images


def prompts_of(model, rows, images):
    """The rows for vLLM, which puts in the places of the images by itself."""
    from transformers import AutoTokenizer

    text = AutoTokenizer.from_pretrained(model)(text_with_two_images(model), add_special_tokens=False)["input_ids"]
    return [
        {"prompt_token_ids": text, "multi_modal_data": {"image": images}},
        *({"prompt_token_ids": ids.tolist()} for ids, beside, _ in rows if not beside),
    ]


class Rollout:
    """vLLM with dummy weights, as verl starts it."""

    def __init__(self, model, rows, images):
        from vllm import LLM

        self._engine = LLM(
            model, dtype="float32", load_format="dummy", enforce_eager=True, distributed_executor_backend="uni",
            max_model_len=512, max_num_seqs=4, limit_mm_per_prompt={"image": 4, "video": 0}, enable_prefix_caching=False,
        )  # fmt: skip
        core = self._engine.llm_engine.engine_core.engine_core
        self.runner = core.model_executor.driver_worker.worker.model_runner
        self._prompts = prompts_of(model, rows, images)

    def log_probs(self):
        """Those of each token but the first of each row, one row behind the other."""
        from vllm import SamplingParams

        # What images are to the model depends on its weights.
        self._engine.reset_mm_cache()
        self._engine.llm_engine.reset_encoder_cache()
        wanted = SamplingParams(max_tokens=1, prompt_logprobs=0, temperature=0)
        outputs = self._engine.generate(self._prompts, wanted, use_tqdm=False)
        return torch.tensor(
            [
                entry[token].logprob
                for output in outputs
                for token, entry in zip(output.prompt_token_ids[1:], output.prompt_logprobs[1:], strict=True)
            ]
        )


def main():
    from reinforcement_learning.verl_adapter.cpu_vllm import load_weights

    model, images = sys.argv[1], two_images()
    os.environ["MASTER_PORT"] = str(free_port())
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    engine, model_config, _ = build_engine("tiny_cpu", model, [])
    rows = list(rows_of(model, images))
    rollout = Rollout(model, rows, images)

    def compare():
        with torch.no_grad():
            found = log_probs_of(engine, batch_of(rows, model_config))
        expected = torch.cat([row[: len(ids) - 1] for row, (ids, _, _) in zip(found, rows, strict=True)])
        sampled = rollout.log_probs()
        both = torch.stack([sampled.exp(), expected.exp()])
        return {"apart": (sampled - expected).abs().max().item(), "correlation": both.corrcoef()[0, 1].item()}

    def weights():
        return [(name, weight.clone()) for name, weight in engine.get_per_tensor_param()[0]]

    facts = {"dummy": compare()}
    rollout.runner.reload_weights(weights_iterator=iter(weights()), is_checkpoint_format=True)
    facts["by_vllm"] = compare()
    load_weights(rollout.runner, weights())
    facts["by_us"] = compare()
    with torch.no_grad():
        for parameter in engine.module.parameters():
            parameter.mul_(1.1)
    facts["moved"] = compare()
    load_weights(rollout.runner, weights())
    facts["moved_by_us"] = compare()
    sys.stdout.write("\n" + json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
