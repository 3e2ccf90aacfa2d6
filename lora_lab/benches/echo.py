"""What no model scores: each prompt is answered by the completion of the training prompt most like it."""

from collections.abc import Sequence

from sklearn.feature_extraction.text import TfidfVectorizer

from lora_lab.benches.examples import Completion


def nearest_answers(train: Sequence[Completion], held_out: Sequence[Completion]) -> list[str]:
    """The completion of the training example whose prompt is most like each held-out prompt's.

    Alike is the cosine of TF-IDF vectors over words. What a trained model scores above these it did not get by repeating.
    """
    vectorizer = TfidfVectorizer()
    seen = vectorizer.fit_transform([example.prompt for example in train])
    asked = vectorizer.transform([example.prompt for example in held_out])
    return [train[int((row @ seen.T).toarray().argmax())].completion for row in asked]
