"""The sixty topics: every noun, verb phrase and adjective that the generated text is made of.

One line a topic, five fields: activity | the person who does it | where | parts, with "the" in front | acts | traits.
"""

from dataclasses import dataclass

_TABLE = """
growing tomatoes | gardener | in the garden | seeds, roots, stakes, soil, ripe fruit | water the roots, turn the soil, prune the side shoots, tie up the stems | juicy, tender, sunny
baking bread | baker | in the bakery | dough, yeast, oven, crust, flour | knead the dough, dust the table, heat the oven, let the dough rise | crisp, warm, golden
keeping bees | beekeeper | by the hives | hives, honey, smoker, queen, frames | light the smoker, lift the frames, feed the bees, scrape off the wax | busy, sweet, gentle
sailing a boat | sailor | on the water | sail, rudder, ropes, anchor, wind | hoist the sail, watch the wind, coil the ropes, drop the anchor | salty, steady, windy
playing chess | chess player | at the board | king, pawns, opening, clock, endgame | guard the king, open the centre, trade the pieces, watch the clock | clever, patient, sharp
painting a wall | painter | in the hallway | brush, roller, primer, tape, colour | sand the wall, tape the edges, stir the paint, roll the second coat | smooth, bright, even
hiking in the hills | hiker | on the trail | boots, map, path, summit, backpack | lace the boots, read the map, fill the bottle, follow the signs | steep, quiet, green
brewing coffee | barista | in the café | beans, grinder, filter, water, cup | grind the beans, rinse the filter, pour the water, warm the cup | bitter, dark, fresh
learning the piano | pianist | at the keyboard | keys, pedal, scales, melody, notes | play the scales, count the beat, relax the wrists, repeat the hard bars | soft, musical, slow
repairing bicycles | mechanic | in the workshop | chain, brakes, tyres, pedals, spokes | oil the chain, pump the tyres, tighten the brakes, true the wheel | greasy, light, sturdy
watching birds | birdwatcher | at the lake | feathers, nest, song, binoculars, wings | hold the binoculars still, note the colours, listen to the song, wait in silence | shy, colourful, rare
knitting a scarf | knitter | in the armchair | wool, needles, stitches, pattern, fringe | cast on the stitches, count the rows, wind the wool, bind off the end | woolly, cosy, striped
training a dog | dog trainer | in the park | leash, treats, commands, collar, walks | reward the dog, repeat the command, shorten the leash, praise at once | loyal, playful, alert
cooking soup | cook | in the kitchen | broth, carrots, herbs, pot, spoon | chop the carrots, simmer the broth, skim the top, taste the salt | hearty, thick, spicy
taking photographs | photographer | in the studio | lens, camera, light, shadow, tripod | clean the lens, frame the subject, wait for the light, steady the camera | sharp, moody, clear
saving money | saver | at the bank | budget, account, bills, coins, interest | write the budget, cancel old bills, count the coins, compare the rates | careful, modest, wise
teaching children | teacher | in the classroom | lesson, blackboard, homework, questions, chalk | greet the class, explain the task, praise the effort, read aloud | lively, curious, kind
studying stars | astronomer | under the night sky | telescope, planets, moon, galaxy, orbit | align the telescope, chart the planets, wait for the dark, record the moon | distant, silent, bright
building a treehouse | carpenter | in the old oak | planks, nails, ladder, roof, branches | measure the planks, drive the nails, test the ladder, brace the floor | wooden, solid, high
fishing at dawn | angler | at the river | rod, hook, bait, net, float | bait the hook, cast the line, watch the float, reel in slowly | misty, calm, slippery
running a marathon | runner | on the road | shoes, pace, finish line, muscles, route | stretch the legs, keep the pace, drink at each stop, rest before the race | tired, fast, tough
writing poems | poet | at the desk | rhyme, verse, images, rhythm, paper | choose the image, read the verse aloud, cut weak words, find the rhythm | tender, lyrical, short
caring for horses | groom | in the stable | saddle, mane, hooves, hay, reins | brush the mane, pick the hooves, fill the hay net, check the saddle | proud, strong, nervous
making cheese | cheesemaker | in the dairy | milk, curds, rennet, rind, cellar | warm the milk, cut the curds, press the cheese, turn the wheels | creamy, salty, mild
driving a truck | truck driver | on the motorway | engine, mirrors, cargo, tank, gears | check the mirrors, secure the cargo, fill the tank, plan the stops | heavy, loud, sleepy
running a library | librarian | in the reading room | shelves, books, catalogue, cards, readers | sort the shelves, stamp the cards, mend the books, greet the readers | dusty, silent, orderly
planting trees | forester | in the forest | saplings, bark, shade, spade, leaves | dig the hole, water the saplings, spread the mulch, mark the row | leafy, tall, shady
swimming in the sea | swimmer | at the beach | waves, current, towel, tide, goggles | check the tide, breathe evenly, stay near the shore, rinse the goggles | cold, blue, wild
mending clothes | tailor | at the sewing machine | thread, buttons, fabric, zip, seam | thread the needle, press the seam, match the fabric, sew on the buttons | neat, soft, torn
forecasting weather | forecaster | at the weather station | clouds, pressure, storms, rain, satellite | read the pressure, watch the clouds, map the storms, warn the towns | stormy, humid, cloudy
collecting stamps | collector | at the stamp fair | album, stamps, tweezers, envelope, postmark | soak the stamps, sort the album, lift with tweezers, date the postmark | tiny, rare, old
dancing the tango | dancer | in the ballroom | steps, partner, music, posture, turn | hold the posture, follow the music, lead the partner, practise the turn | elegant, slow, fiery
climbing rocks | climber | on the cliff | rope, harness, grip, chalk bag, ledge | check the harness, test the grip, clip the rope, rest on the ledge | rough, dizzy, brave
making pottery | potter | at the wheel | clay, kiln, glaze, bowl, wheel | wedge the clay, centre the bowl, mix the glaze, fire the kiln | wet, round, fragile
driving trains | train driver | on the line | signal, rails, carriages, whistle, timetable | watch the signal, brake in time, sound the whistle, check the timetable | punctual, long, noisy
nursing patients | nurse | on the ward | bandage, medicine, chart, bed, pulse | change the bandage, take the pulse, note the chart, calm the patient | gentle, sleepless, brave
reporting news | reporter | in the newsroom | headline, source, notebook, deadline, story | check the source, write the headline, call the witness, meet the deadline | urgent, honest, loud
programming computers | programmer | at the screen | code, bugs, tests, loop, memory | read the code, write the tests, fix the bugs, name the variables | logical, hidden, fast
running a hotel | hotel keeper | at the front desk | rooms, guests, keys, lobby, breakfast | air the rooms, welcome the guests, count the keys, serve the breakfast | polite, clean, crowded
growing grapes | winemaker | in the vineyard | vines, barrels, grapes, harvest, cork | prune the vines, pick the grapes, rinse the barrels, taste the wine | ripe, dry, fruity
skiing downhill | skier | on the slope | skis, poles, snow, lift, helmet | wax the skis, bend the knees, check the snow, fasten the helmet | snowy, icy, swift
making films | director | on the set | scene, actors, script, camera crew, costumes | read the script, light the scene, guide the actors, cut the film | dramatic, funny, long
digging for fossils | palaeontologist | in the desert | bones, brushes, layers, fossil, plaster | brush the bones, mark the layers, wrap the fossil, draw the site | ancient, brittle, buried
keeping an aquarium | fishkeeper | by the tank | fish, gravel, pump, plants, bubbles | change the water, feed the fish, rinse the gravel, clean the pump | quiet, tropical, clear
fighting fires | firefighter | at the fire station | hose, ladder truck, smoke, alarm, mask | roll the hose, answer the alarm, check the mask, clear the building | hot, brave, smoky
selling at a market | stallholder | at the market | stall, prices, apples, scale, customers | set up the stall, weigh the apples, chalk the prices, greet the customers | cheap, lively, fresh
singing in a choir | singer | in the church | voices, breath, conductor, hymn, harmony | warm up the voices, hold the breath, watch the conductor, blend the sound | loud, pure, solemn
restoring furniture | restorer | in the attic | chair, varnish, drawers, hinges, wood | strip the varnish, glue the joints, oil the hinges, polish the wood | antique, shiny, worn
camping with friends | camper | at the campsite | tent, fire, sleeping bag, stove, lantern | pitch the tent, gather the wood, hang the lantern, light the stove | smoky, merry, damp
designing houses | architect | at the drawing board | plans, windows, walls, stairs, roof tiles | sketch the plans, measure the walls, place the windows, ask the builder | modern, airy, square
guiding tourists | tour guide | in the old town | museum, square, tickets, statue, stories | count the group, buy the tickets, tell the stories, cross the square | historic, crowded, friendly
studying volcanoes | geologist | on the crater rim | lava, ash, crater, gas, tremors | measure the gas, sample the lava, watch the tremors, keep a safe distance | hot, dangerous, restless
planning a wedding | wedding planner | in the banquet hall | cake, rings, flowers, invitations, band | book the band, order the cake, send the invitations, arrange the flowers | romantic, festive, expensive
recycling waste | recycler | at the depot | glass, bottles, bins, plastic, metal | sort the glass, rinse the bottles, flatten the boxes, label the bins | useful, clean, dull
flying kites | kite flyer | on the meadow | string, tail, kite, breeze, frame | unwind the string, face the breeze, balance the frame, knot the tail | light, windy, colourful
making chocolate | chocolatier | in the sweet shop | cocoa, sugar, moulds, butter, filling | melt the cocoa, stir the sugar, fill the moulds, cool the tray | sweet, dark, silky
practising yoga | yoga teacher | on the mat | breath, balance, back, mat, pose | breathe in slowly, hold the pose, stretch the back, close the eyes | calm, bendy, mindful
fixing radios | technician | at the workbench | antenna, battery, wires, speaker, dial | test the battery, solder the wires, tune the dial, clean the speaker | crackling, small, old
raising chickens | farmer | on the farm | eggs, hens, coop, grain, fence | collect the eggs, scatter the grain, close the coop, mend the fence | noisy, brown, feathery
drawing comics | comic artist | at the light table | panels, ink, hero, pencils, speech bubbles | sketch the panels, ink the lines, letter the bubbles, draw the hero | funny, bold, simple
"""


@dataclass(frozen=True)
class Topic:
    """One row of the table; `index` is its place, from which topic-dependent modes are derived."""

    index: int
    activity: str
    person: str
    place: str
    parts: tuple[str, ...]
    acts: tuple[str, ...]
    traits: tuple[str, ...]


def _split(field: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in field.split(","))


def _parse(index: int, line: str) -> Topic:
    activity, person, place, parts, acts, traits = (field.strip() for field in line.split("|"))
    return Topic(index, activity, person, place, _split(parts), _split(acts), _split(traits))


TOPICS = tuple(_parse(index, line) for index, line in enumerate(_TABLE.strip().splitlines()))

NAMES = tuple(
    "Anna Boris Clara David Elena Felix Greta Hugo Irene Jonas Karin Leo Marta Nils Olga Peter Rosa Simon Tara Victor".split()
)
