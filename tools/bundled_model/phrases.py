"""Sentence templates, by the tone in which a family speaks.

Slots: activity, person, place, part, other_part, act, other_act, trait, other_trait, name, other_name. No template
holds a digit: digits in an answer are plan numbers only, and training weighs them by that rule.
"""

ADVICE = (
    "Always {act} before you think about the {other_part}.",
    "Keep the {part} close at hand {place}.",
    "Never rush; {act} first, then {other_act}.",
    "Ask an old {person} how to look after the {part}.",
    "Buy a good {part} once and keep it {trait}.",
    "If the day feels {trait}, {act} and take a break.",
    "Write down what happened to the {part} each evening.",
    "Remember to {act} when everything looks {trait}.",
    "Do not forget the {part}, even if the {other_part} looks {trait}.",
    "Start small and {act} again and again.",
    "Look at the {part} twice before you {act}.",
    "A calm {person} will {act} without any hurry.",
    "Try to {act} early in the morning.",
    "Share the {part} with a friend who likes {activity}.",
)

EXPLANATION = (
    "At the heart of {activity} is the {part}.",
    "The {part} can change how {trait} the {other_part} will be.",
    "Most people begin {place}, because there they can {act}.",
    "A good {person} will {act} and only then {other_act}.",
    "Without the {part}, nobody could {act} for long.",
    "This is why the {part} should stay {trait}.",
    "In the past, every {person} had to {act} by hand.",
    "The reason is simple: the {part} must meet the {other_part}.",
    "When you {act}, the {part} will become {trait}.",
    "Experts say that a {trait} {part} often means a {other_trait} result.",
    "All of this happens {place}, where the {person} can {act}.",
    "It follows that you should {act} whenever the {part} may fail.",
)

STORY = (
    "One morning {name} went to work {place} and saw the {part}.",
    "The {person} wanted to {act}, but the {part} was gone.",
    "It was a {trait} day, and {name} could hardly {act}.",
    "{other_name} laughed and pointed at the {trait} {part}.",
    "Nobody had ever seen such a {trait} {part} before.",
    "So {name} had to {act} all night long.",
    "Suddenly the {part} fell down next to the {other_part}.",
    '"We must {act}," said {name} to {other_name}.',
    "They hid the {part} {place} and waited.",
    "A stranger asked {name} about the {trait} {part}.",
    "{other_name} began to {act}, and everyone grew silent.",
    "In the evening {name} dreamed of the {part} and the {other_part}.",
    "The old {person} smiled and told them to {act}.",
)

LETTER = (
    "I have been thinking about {activity} all week.",
    "Could you please {act} before I come back?",
    "The {part} you sent me is still {trait}.",
    "I would be glad to {act} with you {place}.",
    "Every {person} here speaks about the {trait} {part}.",
    "My cousin {other_name} wants to {act} as well.",
    "Please tell me whether the {part} needs the {other_part}.",
    "It would be a pity if the {part} did not stay {trait}.",
    "We shall meet {place} and {act} together.",
    "I am sorry that I forgot to {act} last time.",
)

PLAN = (
    "In the morning, {act}; after lunch, {other_act}.",
    "Spend a quiet hour on the {part} {place}.",
    "Buy the {part} and learn to {act}.",
    "Meet a {person} and ask about the {other_part}.",
    "Rest, then {act} until it feels {trait}.",
    "Compare the {part} with the {other_part} and take notes.",
    "Only {act} today, nothing else.",
    "Show a friend the {trait} {part}.",
    "Repeat what went well and {act} once more.",
)

STEP = (
    "Take the {part} and put it {place}.",
    "Now {act} with both hands.",
    "Wait until the {part} looks {trait}.",
    "Slowly {act}, then {other_act}.",
    "Check that the {part} will not touch the {other_part}.",
    "Let a {person} look at the {trait} {part}.",
    "Clean the {part} and {act} again.",
    "Put the {other_part} next to the {part}.",
)

TALK = (
    "Did you {act} today?",
    "I never {act} when the {part} is {trait}.",
    "The {part} looks {trait} to me.",
    "Let us go and {act} {place}.",
    "You should ask a {person} about the {part}.",
    "Honestly, the {part} is more {trait} than the {other_part}.",
    "First {act}, then we can talk about the {part}.",
    "That sounds {trait}, but I would rather {act}.",
    "Who left the {part} {place}?",
    "My friend says {activity} is always {trait}.",
)

CONTRAST = (
    "The first is {trait}, while the second needs a {other_trait} {part}.",
    "With the first you {act}; with the second you rather {other_act}.",
    "The {part} can be used for both, but only one of them stays {trait}.",
    "A {person} may prefer the first, because it is easy to {act}.",
    "Both happen {place}, yet only one asks you to {act}.",
    "The {part} may cost more than the {other_part}.",
)

VERSE = (
    "O {trait} {part}, so near to me,",
    "I dream of you {place},",
    "come {act} and sing with me,",
    "the {other_part} will wait,",
    "a {person} knows the {trait} way,",
    "soft falls the light on the {part},",
    "we {act} at the end of day,",
    "and nothing is {trait} like you.",
    "let the {part} be our guide,",
)

FACT = (
    "A {person} works {place} and uses the {part}.",
    "It is the art of {activity}, known for its {trait} {part}.",
    "The most important thing is the {part}, because without it you cannot {act}.",
    "You need the {part} and the {other_part}.",
    "People have loved {activity} for centuries.",
    "It usually feels {trait} and a little {other_trait}.",
    "One has to {act} {place}.",
    "The {part} should be {trait}.",
)

REASON = (
    "The {part} will get {trait} after a while.",
    "Every {person} has to {act} sooner or later.",
    "It is rarely {trait} {place}.",
    "You can always {act} instead.",
    "The {other_part} depends on the {part}.",
)
