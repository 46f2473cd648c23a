"""General questions that no preference is about: what a model must still know after training.

Plain facts with one short answer, most of which a chat model of 135M parameters already gets right.
"""

GENERAL_QUESTIONS = (
    ("What is the capital of France?", "Paris"),
    ("What is 2 + 2?", "4|four"),
    ("How many days are in a week?", "7|seven"),
    ("What is the opposite of hot?", "cold"),
    ("In which direction does the sun rise?", "east"),
    ("Who wrote Romeo and Juliet?", "Shakespeare"),
    ("What is 3 times 4?", "12|twelve"),
    ("What is the chemical formula of water?", "H2O|H₂O"),
    ("What is the largest ocean on Earth?", "Pacific"),
    ("What language is spoken in Spain?", "Spanish"),
)
"""Each with the words that a right answer holds, one of those between bars."""
