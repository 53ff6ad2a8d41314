"""The block of docs/start.md: train on a part of the generated corpus, evaluate, save, reload and predict."""

from transformers import pipeline, set_seed

from sgm_hf import (
    SGMConfig,
    SGMForMultiLabelGeneration,
    SGMTokenizer,
    SGMTrainer,
    SGMTrainingArguments,
    encode_dataset,
    label_sets_of,
    load_corpus,
    order_label_names,
)

set_seed(0)
corpus = load_corpus("generated")
train, validation = corpus["train"].select(range(8000)), corpus["validation"]
tokenizer = SGMTokenizer.train_from_texts(train["text"], vocab_size=10_000)
names = order_label_names(label_sets_of(train), train.features["labels"].feature.names, "frequency")

config = SGMConfig(
    vocab_size=len(tokenizer),
    id2label=dict(enumerate(names)),
    label_feedback="global_embedding",  # SGM+GE; "previous_label" is SGM
    embedding_size=96,
    encoder_hidden_size=96,
    encoder_layers=1,
    decoder_hidden_size=128,
    dropout=0.2,
)
trainer = SGMTrainer(
    model=SGMForMultiLabelGeneration(config),
    args=SGMTrainingArguments("runs/readme", num_train_epochs=4, learning_rate=2e-3, per_device_train_batch_size=32),
    train_dataset=encode_dataset(train, tokenizer, names),
    eval_dataset=encode_dataset(validation, tokenizer, names),
    processing_class=tokenizer,
)
trainer.train()
metrics = trainer.evaluate()
print(f"{metrics['eval_micro_f1']:.3f}")
trainer.save_model("runs/readme/model")

classifier = pipeline("multi-label-generation", model="runs/readme/model")
texts = validation["text"][8:10]
print(classifier(texts[0]))
print(classifier(texts[0], max_labels=2, forbidden_labels=["politics"]))
print(classifier(texts, top_k=2))
