"""Ordinary English that no preference is about: what a model must still predict after training."""

ORDINARY_TEXTS = (
    "Water boils when it is heated to a hundred degrees, and it freezes when it is cooled to zero.",
    "The library opens at nine in the morning and closes at six, except on Sundays.",
    "She put the letter into an envelope, wrote the address on it, and walked to the post office.",
    "Bread is made from flour, water, salt and yeast. The dough must rise before it is baked.",
    "The river begins in the mountains, flows through three countries, and ends in the sea.",
    "To find the area of a rectangle, multiply its length by its width.",
    "In autumn the leaves of many trees turn yellow and red before they fall to the ground.",
    "My grandfather repaired clocks. He could tell from the sound alone which wheel was worn.",
    "The train was late because of the snow, so we drank tea in the station and waited.",
    "A triangle has three sides, a square has four, and a circle has none.",
    "Plants take in light through their leaves and water through their roots.",
    "The meeting is on Thursday at ten. Please bring the figures of the last three months.",
    "for i in range(10):\n    if i % 2 == 0:\n        print(i)",
    "After the war the bridge was built again, this time of steel and not of stone.",
    "Cats sleep for most of the day and hunt at night. Dogs are awake when people are.",
    "If you mix blue and yellow paint you get green; red and yellow make orange.",
    "The doctor listened to his heart, asked a few questions, and told him to rest for a week.",
    "There are seven days in a week, twelve months in a year, and sixty minutes in an hour.",
    "He counted the money twice, closed the shop, and went home through the quiet streets.",
    "The moon goes round the earth in about a month, and the earth goes round the sun in a year.",
)
