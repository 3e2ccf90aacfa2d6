"""What the tables of the SQL task are about: no topic's name, column or category is of two splits."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topic:
    """What one table may hold: who or what a row is, a category of it, and numbers about it."""

    table: str
    entity: str
    category: str
    categories: tuple[str, ...]
    integers: tuple[str, ...]
    reals: tuple[str, ...]


def _topics(lines: str) -> tuple[Topic, ...]:
    """A topic a line: table; entity; category = values; integers; reals."""
    return tuple(map(_topic, lines.strip().splitlines()))


def _topic(line: str) -> Topic:
    table, entity, category, integers, reals = (part.strip() for part in line.split(";"))
    name, _, values = category.partition(" = ")
    return Topic(table, entity, name, *(tuple(part.split(", ")) for part in (values, integers, reals)))


TRAIN_TOPICS = _topics("""
birds; species; habitat = marsh, cliff, meadow, heath; clutch size, ring number; wingspan, beak length
films; title; genre = comedy, western, thriller, musical; screenings, awards; running time, budget
mountains; peak; massif = northern, coastal, central, outer; ascents, huts; elevation, slope
rivers; river; basin = alpine, lowland, arctic, delta; dams, locks; course length, discharge
ships; vessel; cargo = grain, timber, coal, iron; crew, decks; tonnage, draught
trains; service; line = red, blue, green, amber; carriages, stops; top speed, delay
schools; school; level = primary, secondary, technical, evening; pupils, teachers; fee, attendance
farms; farm; crop = wheat, barley, maize, rye; cows, tractors; acreage, rainfall
museums; museum; focus = science, art, history, nature; rooms, visitors; ticket price, floor area
bakeries; baker; speciality = bread, cakes, biscuits, pies; ovens, loaves; flour use, turnover
cyclists; rider; team = falcons, comets, rovers, giants; wins, age; weight, distance
runners; runner; club = harriers, athletics, pacers, striders; races, bib; stride, best time
singers; singer; voice = alto, tenor, bass, soprano; albums, concerts; vocal range, royalties
painters; painter; style = cubist, baroque, gothic, romantic; canvases, exhibitions; average bid, commission
hotels; hotel; district = harbour, station, airport, castle; beds, floors; nightly rate, rating
phones; model; maker = Orbit, Nimbus, Zephyr, Quasar; cameras, memory; screen size, battery life
cars; car; fuel = petrol, diesel, electric, hybrid; doors, seats; engine size, mileage
books; book; subject = travel, poetry, biography, cookery; pages, chapters; list price, thickness
gardens; garden; season = spring, summer, autumn, winter; benches, fountains; hedge height, lawn area
bridges; bridge; material = steel, stone, wood, concrete; lanes, arches; span, clearance
towers; tower; purpose = water, radio, clock, bell; steps, windows; height, lean
islands; island; climate = tropical, temperate, polar, arid; villages, beaches; shoreline, ferry fare
planets; planet; kind = rocky, gaseous, icy, molten; moons, rings; orbit time, gravity
teams; squad; division = premier, first, second, third; goals, losses; possession, wage bill
chess players; player; opening = gambit, sicilian, slav, pirc; draws, matches; elo gain, clock use
restaurants; kitchen; cuisine = italian, thai, greek, turkish; tables, waiters; bill, tip
cheeses; cheese; milk = cow, goat, sheep, buffalo; wheels, cave age; fat share, rind depth
wines; wine; grape = merlot, malbec, syrah, riesling; bottles, casks; alcohol, acidity
factories; plant; product = glass, paper, rubber, cement; workers, shifts; output, waste
mines; mine; ore = copper, zinc, nickel, tin; shafts, miners; depth, yield
banks; bank; region = west, east, north, south; branches, clerks; deposit, interest
clinics; clinic; ward = eye, ear, heart, bone; nurses, surgeries; stay, cost
parks; park; terrain = forest, dune, lake, valley; trails, rangers; extent, entry fee
dogs; dog; breed = beagle, collie, poodle, terrier; litters, tricks; shoulder height, daily feed
horses; horse; coat = bay, grey, chestnut, roan; starts, foals; stake, girth
theatres; theatre; stage = thrust, arena, proscenium, open; rows, plays; subsidy, aisle width
airlines; carrier; alliance = sky, star, union, wing; planes, routes; load, delay rate
lakes; lake; origin = glacial, volcanic, crater, rift; boats, islets; salinity, surface
festivals; festival; month = may, june, july, august; stalls, tents; noise, profit
stores; store; format = kiosk, mall, outlet, online; tills, returns; rent, margin
""")

VALIDATION_TOPICS = _topics("""
lighthouses; beacon; lamp = halogen, xenon, paraffin, sodium; keepers, flashes; beam reach, lantern diameter
apiaries; apiarist; nectar = clover, heather, acacia, lavender; hives, queens; honey harvest, wax
bus depots; depot; livery = maroon, turquoise, ivory, cobalt; buses, drivers; odometer, tyre wear
orchestras; conductor; repertoire = symphonic, operatic, chamber, choral; violins, rehearsals; tempo, endowment
quarries; quarry; rock = granite, slate, basalt, sandstone; blasts, excavators; pit width, dust
pottery kilns; potter; glaze = celadon, tenmoku, raku, shino; firings, vases; clay intake, temperature
truffle hunts; hound; temperament = calm, bold, shy, playful; kennels, whistles; bark volume, sprint
satellites; satellite; mission = weather, relay, survey, navigation; sensors, antennas; altitude, wattage
postal rounds; courier; borough = Ashby, Milford, Selwood, Tarrant; parcels, letters; satchel bulk, lateness
ski lifts; lift; mechanism = chair, gondola, rope, cable; pylons, skiers; ascent rate, queue length
""")

TEST_TOPICS = _topics("""
aquariums; aquarium; inhabitant = seahorse, octopus, jellyfish, stingray; tanks, divers; litres, chlorine
windmills; miller; grist = oats, millet, spelt, buckwheat; sails, sacks; millstone radius, gust
submarines; submarine; hull = titanium, carbon, alloy, bronze; torpedoes, sailors; dive limit, sonar reach
laboratories; laboratory; discipline = optics, genetics, acoustics, robotics; microscopes, patents; grant, humidity
marathon stages; finish town; pavement = asphalt, gravel, cobbles, sand; marshals, cups; gradient, headwind
tailors; tailor; fabric = linen, velvet, tweed, silk; suits, buttons; inseam, invoice
volcanoes; volcano; lava = basaltic, dacitic, rhyolitic, andesitic; eruptions, vents; plume, tremor
perfumes; perfume; scent = jasmine, cedar, amberwood, vanilla; flasks, notes blended; potency, evaporation
greenhouses; grower; seedling = tomato, cucumber, pepper, aubergine; trays, sprinklers; warmth, sunlight
skateboards; skater; plank = maple, bamboo, birch, ash; ollies, kickflips; axle width, wheel hardness
""")
