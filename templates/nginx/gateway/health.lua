--- Which replicas serve, which start, which are dead: asked at intervals, and at once when one is under suspicion.

local counts = require "gateway.counts"
local ffi = require "ffi"
local file = require "gateway.file"
local routes = require "gateway.routes"

local ROUND = 0.25 -- seconds between two looks at what is not up: so long a model that is ready may wait for its first request
local UP_ROUNDS = 20 -- rounds between two looks at what is up: its requests tell more
local MOST_UP = 2 -- looks at what is up in one round: a thousand models must not cost more than forty
local SECOND = 4 -- rounds
local MINUTE = 240 -- rounds
local TIMEOUT = 1000 -- milliseconds
local PASSIVE_REST = 10 -- seconds that a place without a health page is left alone after it failed
local LONGEST_SILENCE = 60 -- seconds in which what is up may answer nobody at all: then it is not busy but stuck
local MOST_WORKERS = 64 -- old ones that still stream after a reload included
local AT_ONCE = 32 -- replicas asked at the same time
local LONGEST_DRAIN = 180 -- seconds, longer than is waited: who was told to drain one and was killed must not keep it out
local PROBE = "GET %s HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n"
local MISSING = "no such file or directory" -- as nginx words it

-- state:KEY  "starting", "up" or "down"; absent = not asked yet
-- since:KEY  when it began to be that, in seconds since 1970
-- silent:KEY  when it began to give us no answer
-- draining:KEY  it is to end its requests and get no new ones: it counts as starting, whatever it says itself
local shared = ngx.shared.gateway

local M = {}

--- A connect to a socket that is not there yet is a line in nginx's log, each time; a look is none.
function M.socket_exists(address)
    local path = address:match("^unix:(.*)$")
    return not path or file.exists(path)
end

--- A socket that leads to a replica, with these timeouts in milliseconds for each step; nil and why there is none.
function M.connect(address, ...)
    if not M.socket_exists(address) then
        return nil, MISSING
    end
    local socket = ngx.socket.tcp()
    socket:settimeouts(...)
    local host, port = address:match("^([^/]*):(%d+)$")
    local ok, problem
    if port then
        ok, problem = socket:connect(host, tonumber(port))
    else
        ok, problem = socket:connect(address)
    end
    return ok and socket, problem
end

-- Asks a replica how it is: the status code, or why there is none.
local function ask(replica)
    local socket, problem = M.connect(replica.address, TIMEOUT, TIMEOUT, TIMEOUT)
    if not socket then
        return problem
    end
    local ok, line
    ok, problem = socket:send(PROBE:format(replica.health))
    if ok then
        line, problem = socket:receive("*l")
    end
    if line then
        -- Unread bytes at the close would look to the engine like a client that broke off.
        socket:receiveany(8192)
    end
    socket:close()
    return line and line:match("^HTTP/1%.%d (%d%d%d)") or problem
end

-- Whether a replica that does not answer us has answered nobody else either, for longer than an engine is busy.
local function is_stuck(replica)
    local now = ngx.time()
    shared:add("silent:" .. replica.key, now)
    local spoke = ngx.shared.metrics:get("replica:spoke:" .. replica.key) or 0
    local stuck = now - math.max(spoke, shared:get("silent:" .. replica.key) or now) >= LONGEST_SILENCE
    if stuck and shared:get(replica.state) == "up" then
        ngx.log(ngx.ERR, replica.name, " takes connections and has answered nobody for ", LONGEST_SILENCE, " s: it counts as down")
    end
    return stuck
end

-- What an answer makes of a replica that was in the state `before`.
local function next_state(before, answer, replica)
    if answer ~= "timeout" then
        shared:delete("silent:" .. replica.key)
    end
    if answer == "200" then
        return "up"
    elseif answer == "503" or answer == MISSING then
        return "starting"
    elseif answer == "timeout" then
        if (before == "up" or before == "down") and is_stuck(replica) then
            return "down"
        end
        -- An engine under load may be too busy to say how it is.
        return before == "up" and "up" or "starting"
    end
    return (before == "up" or before == "down") and "down" or "starting"
end

local function set(replica, state)
    local before = shared:get(replica.state)
    if before ~= state then
        shared:set("since:" .. replica.key, ngx.time())
        shared:set(replica.state, state)
        replica.seen_at = nil
    end
end

--- Asks one replica and notes what it says.
function M.look(replica)
    if shared:get("draining:" .. replica.key) then
        return set(replica, "starting")
    elseif replica.health then
        set(replica, next_state(shared:get(replica.state), ask(replica), replica))
    elseif not shared:get("resting:" .. replica.key) then
        set(replica, "up")
    end
end

local function probe(replica)
    if shared:add("probing:" .. replica.key, true, 5) then
        M.look(replica)
        shared:delete("probing:" .. replica.key)
    end
end

local function probe_each(premature, replicas)
    if premature then
        return
    end
    local threads = {}
    for _, replica in ipairs(replicas) do
        threads[#threads + 1] = ngx.thread.spawn(probe, replica)
        if #threads == AT_ONCE then
            for _, thread in ipairs(threads) do
                ngx.thread.wait(thread)
            end
            threads = {}
        end
    end
end

--- Has replicas looked at now instead of at the next round.
function M.suspect(replicas)
    if #replicas > 0 then
        ngx.timer.at(0, probe_each, replicas)
    end
end

--- Notes that a replica could not be reached; another one is tried while it is asked.
function M.failed(replica)
    if replica.passive then
        shared:set("resting:" .. replica.key, true, PASSIVE_REST)
        set(replica, "down")
    else
        M.suspect({ replica })
    end
end

--- Keeps new requests from a replica, or lets them come again; returns whether there is one of that name.
function M.drain(name, on)
    local known = false
    for key, replica in pairs(routes.replicas) do
        if replica.name == name then
            known = true
            if on then
                shared:set("draining:" .. key, true, LONGEST_DRAIN)
                set(replica, "starting")
            else
                shared:delete("draining:" .. key)
                M.suspect({ replica })
            end
        end
    end
    return known
end

--- What a replica is: looked up once a millisecond, for all requests that nginx works on before it asks for more.
function M.state(replica)
    local now = ngx.now()
    if replica.seen_at ~= now then
        replica.seen_at, replica.seen = now, shared:get(replica.state) or (replica.passive and "up" or "starting")
    end
    return replica.seen
end

--- The best state of a model's replicas, and the seconds since the first of those began to be in it.
function M.state_of(model)
    local best, since = "down", nil
    for _, replica in ipairs(model.replicas) do
        local state = M.state(replica)
        if state == "up" then
            return state
        elseif state == "starting" then
            best = state
            since = math.min(since or math.huge, shared:get("since:" .. replica.key) or ngx.time())
        end
    end
    return best, since and ngx.time() - since or 0
end

-- Whether an nginx worker that we knew is gone: each has taken a number.
local function one_died()
    local died = false
    for number = 1, MOST_WORKERS do
        local pid = shared:get("worker:" .. number)
        if pid and ffi.C.kill(pid, 0) ~= 0 then
            shared:delete("worker:" .. number)
            died = true
        end
    end
    return died
end

local function forget_gone()
    for _, name in ipairs(shared:get_keys(0)) do
        local key = name:match("^state:(.*)$")
        if key and not routes.replicas[key] then
            shared:delete(name)
            shared:delete("since:" .. key)
            shared:delete("silent:" .. key)
            shared:delete("used:" .. key)
        end
    end
end

local function round()
    -- Each nginx worker comes by; the first one in each round does the work.
    if not shared:add("prober", true, ROUND * 0.9) then
        return
    end
    local number = shared:incr("round", 1, 0)
    if number % SECOND == 0 and one_died() then
        counts.sweep()
    end
    if number % MINUTE == 0 then
        forget_gone()
    end
    local in_line = routes.in_line
    local rounds = math.max(UP_ROUNDS, math.ceil(#in_line / MOST_UP))
    local due = {}
    for place = 1, #in_line do
        local replica = in_line[place]
        if M.state(replica) ~= "up" or (replica.health and (place + number) % rounds == 0) then
            due[#due + 1] = replica
        end
    end
    probe_each(false, due)
end

--- Has those looked at that nobody has seen yet.
function M.look_at_new()
    local new = {}
    for _, replica in pairs(routes.replicas) do
        if not shared:get(replica.state) then
            new[#new + 1] = replica
        end
    end
    M.suspect(new)
end

function M.start()
    for number = 1, MOST_WORKERS do
        if shared:add("worker:" .. number, ngx.worker.pid()) then
            break
        end
    end
    ngx.timer.every(ROUND, round)
end

return M
