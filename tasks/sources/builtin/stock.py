"""What the phrases of all domains share: slot values, openers, asides and closers.

None of it says anything about the intent.  A metric that learns to look past it on one set of
domains looks past it on any other, which is what there is to gain from meta-training here.
"""

# Several values a line read better than one.
# fmt: off
SLOTS: dict[str, tuple[str, ...]] = {
    "name": (
        "Anna", "Tom", "Priya", "Luca", "Fatima", "Kenji", "Olga", "Sam", "Ines", "Marcus",
        "Wei", "Nadia", "Diego", "Hannah", "Yusuf", "Chloe",
    ),
    "relative": (
        "my brother", "my sister", "my mother", "my father", "my wife", "my husband", "my boss",
        "my neighbour", "my flatmate", "my cousin", "my daughter", "my son", "my aunt",
        "a colleague", "a friend",
    ),
    "city": (
        "Lisbon", "Oslo", "Leeds", "Chicago", "Nairobi", "Kyoto", "Vienna", "Toronto", "Lima",
        "Athens", "Dublin", "Mumbai", "Seattle", "Prague", "Cairo", "Boston",
    ),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "when": (
        "this morning", "yesterday", "last night", "on {day}", "two days ago", "an hour ago",
        "last week", "the other day", "a while ago", "last {day}", "over the weekend",
    ),
    "soon": (
        "tomorrow", "on {day}", "next week", "this weekend", "tonight", "next {day}",
        "in {month}", "the day after tomorrow", "later today", "{day} morning",
    ),
    "since": (
        "{day}", "yesterday", "this morning", "{month}", "last week", "last night", "last {day}",
        "{time} yesterday",
    ),
    "date": (
        "tomorrow", "{day}", "next week", "this weekend", "next {day}", "the day after tomorrow",
        "{day} morning",
    ),
    "month": ("January", "March", "April", "May", "July", "August", "October", "December"),
    "time": (
        "7 am", "half past six", "noon", "8:15", "three o'clock", "9 pm", "ten thirty",
        "quarter to five", "11 am", "midnight", "2 pm",
    ),
    "amount": (
        "20 euros", "45 pounds", "300 dollars", "19.99", "150 euros", "eighty bucks",
        "12 pounds 50", "a thousand dollars", "65 francs", "five hundred euros",
    ),
    "number": ("two", "three", "four", "five", "six", "seven", "eight", "ten", "twelve", "15"),
    "room": (
        "kitchen", "bedroom", "living room", "bathroom", "hallway", "garage", "study", "attic",
        "nursery", "dining room", "basement", "guest room",
    ),
    "item": (
        "kettle", "jacket", "radio", "sleeping bag", "desk lamp", "backpack", "blender", "tent",
        "keyboard", "raincoat", "toaster", "watch", "rug", "camera",
    ),
    "shop": (
        "supermarket", "petrol station", "bookshop", "pharmacy", "bakery", "cinema",
        "hardware store", "cafe on the corner", "ticket office", "hotel desk",
    ),
    "dish": (
        "lentil soup", "banana bread", "mushroom risotto", "apple pie", "chicken curry",
        "lasagne", "potato salad", "beef stew", "fried rice", "cheesecake", "onion tart",
    ),
    "food": (
        "butter", "oat milk", "cream", "flour", "rice", "salmon", "spinach", "yoghurt", "honey",
        "tomato sauce", "coconut milk", "minced beef", "couscous", "tofu",
    ),
    "artist": (
        "the Paper Lanterns", "Mila Storm", "Northern Static", "the Velvet Otters",
        "Juno Park", "Old Harbour Band", "Rosa Delmar", "Captain Marble",
    ),
    "song": (
        "Blue Gravel", "Seven Rivers", "Hold the Morning", "Glass Parade", "Tin Roof Summer",
        "Slow Comet", "Kitchen Waltz", "Goodbye Antenna",
    ),
    "genre": (
        "jazz", "techno", "folk", "classical", "hip hop", "reggae", "metal", "country", "soul",
    ),
    "medicine": (
        "blood pressure tablets", "antibiotics", "heart pills", "allergy pills", "painkillers",
        "eye drops", "insulin shots", "iron tablets", "cough drops",
    ),
    "doctor": (
        "the dentist", "Doctor {name}", "the skin specialist", "the GP", "the physio",
        "the eye clinic", "the nurse", "the cardiologist",
    ),
    "event": (
        "team lunch", "call with {name}", "budget review", "birthday dinner", "piano lesson",
        "school meeting", "car inspection", "book club", "job interview", "yoga date",
    ),
    "subject": (
        "chemistry", "linear algebra", "history", "Spanish", "economics", "biology",
        "statistics", "philosophy", "art", "programming", "geography", "physics",
    ),
    "work": ("essay", "lab report", "problem set", "project", "reading log", "presentation"),
    "exercise": (
        "squats", "bench press", "rowing", "push-ups", "running", "deadlifts", "swimming",
        "spinning", "lunges", "sprints",
    ),
    "part": ("knee", "shoulder", "lower back", "ankle", "wrist", "hip", "neck", "hamstring"),
}

OPENERS: tuple[str, ...] = (
    "hi,", "hello there,", "hey,", "good (morning|evening),", "ok so,", "quick question:",
    "asking for {relative}:", "sorry to bother you,", "(hi|hello), {name} here,", "right,",
    "listen,", "one (more|other) thing,", "excuse me,", "(dear|hello) team,", "me again,",
    "urgent:", "not sure where to ask,", "hey {name},", "this may sound silly, but",
    "on behalf of {relative}:", "just checking,", "so,", "alright,", "help,",
)

ASIDES: tuple[str, ...] = (
    "{relative} told me to (ask you|write here)",
    "it is (already|almost) {time} here",
    "it has been a (long|strange|terrible|busy) day",
    "the (kids|neighbours) are shouting (again|in the background)",
    "I am typing this with one hand",
    "I already asked {name} (twice|about this)",
    "the (dog|baby) next door (will not stop crying|is at it again)",
    "{name} is (standing behind me|reading over my shoulder)",
    "I am in the middle of a (chess|card) game with {name}",
    "the cat is (sleeping|walking) on my papers",
    "{relative} is painting the fence with {name}",
    "we have (builders|the plumber) in the house",
    "our football team lost again {when}",
    "I am feeding the ducks with {relative}",
    "there is a wedding in our street",
    "{name} and I are (sorting|looking at) old photos",
    "I am (new|not good) at this (kind of thing|sort of chat)",
    "{relative} keeps telling (jokes|ghost stories)",
    "I turned (forty|thirty|sixty) {when}",
    "I only have (a minute|one hand free)",
    "my glasses are broken so forgive the typos",
    "{name} from {city} (gave me|found) this address",
    "I am (writing|asking) because {relative} is too shy",
    "the lawn needs mowing and I have no time",
)

CLOSERS: tuple[str, ...] = (
    "thanks", "thank you (so much|in advance)", "cheers, {name}", "please be quick", "no rush",
    "I need (to know|an answer) by {time}", "(many|kind) regards, {name}", "sorry for the fuss",
    "any help is welcome", "{relative} says hello", "hope that makes sense", "much appreciated",
    "it is driving me mad", "I am in a hurry", "take your time", "let me know (soon|today)",
)
