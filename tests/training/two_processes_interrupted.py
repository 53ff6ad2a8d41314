"""Run by test_distributed.py in each of two processes: the second one is sent SIGTERM in the third update."""

import os
import signal
import sys

import torch
from tiny_training import make_documents, make_model
from transformers import TrainerCallback

from sgm_hf.training import SGMTrainer, SGMTrainingArguments


class SignalOne(TrainerCallback):
    def on_step_begin(self, args, state, control, **keywords):
        if state.global_step == 2 and args.process_index == 1:
            os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    arguments = SGMTrainingArguments(
        output_dir=sys.argv[1],
        num_train_epochs=2,
        per_device_train_batch_size=4,
        save_strategy="no",
        eval_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = SGMTrainer(make_model(), arguments, make_documents(37), callbacks=[SignalOne()])
    try:
        trainer.train()
    finally:
        print(f"process {arguments.process_index} ended after {trainer.state.global_step}", flush=True)
        torch.distributed.barrier()  # gloo aborts a process whose peer has gone while it talks to it
        torch.distributed.destroy_process_group()
