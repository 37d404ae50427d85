"""A small convolutional classifier in TensorFlow, without Keras."""

from __future__ import annotations

import tensorflow as tf

IMAGES = tf.TensorSpec([2, 16, 16, 3], tf.float32, name="images")


class Classifier(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(tf.random.normal([3, 3, 3, 8]), name="kernel")
        self.dense = tf.Variable(tf.random.normal([8, 4]), name="dense")
        self.bias = tf.Variable(tf.zeros([4]), name="bias")

    @tf.function(input_signature=[IMAGES])
    def predict(self, images: tf.Tensor) -> tf.Tensor:
        return self.logits(images)

    @tf.function
    def logits(self, images: tf.Tensor) -> tf.Tensor:
        found = tf.nn.relu(tf.nn.conv2d(images, self.kernel, 1, "SAME"))
        return tf.nn.softmax(tf.reduce_mean(found, [1, 2]) @ self.dense + self.bias)


classifier = Classifier()
concrete = classifier.predict.get_concrete_function()


def save(folder: str) -> None:
    batches = tf.TensorSpec([None, 16, 16, 3], tf.float32, name="images")
    signatures = {
        "serving_default": concrete,
        "any_batch": classifier.logits.get_concrete_function(batches),
    }
    tf.saved_model.save(classifier, folder, signatures=signatures)


if __name__ == "__main__":
    import sys

    save(sys.argv[1])
