-- What a game's or a server's scripts do: small tables, closures, strings put together and
-- taken apart.
local state = 1
local function random(limit)
    state = (state * 1103515245 + 12345) % 2147483648
    return state % limit + 1
end

local things = {}
for step = 1, 700000 do
    local thing = { x = random(1000), y = random(1000), name = "thing" .. random(5000) }
    thing.distance = function() return thing.x * thing.x + thing.y * thing.y end
    things[random(20000)] = thing
end

local parts = {}
local sum = 0
for _, thing in pairs(things) do
    sum = sum + thing.distance()
    parts[#parts + 1] = thing.name .. "=" .. thing.x .. ";"
end
table.sort(parts)
local count = 0
for _ in table.concat(parts):gmatch("(%w+)=(%d+);") do
    count = count + 1
end
print(count, sum)
