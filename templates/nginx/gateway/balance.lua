--- Which replica takes a request, in the order that a model's strategy says.

local concurrent = require("gateway.metrics").concurrent
local counts = require "gateway.counts"
local health = require "gateway.health"

local LOAD = 1.25 -- of the mean, up to which a conversation stays with its replica

-- used:KEY    place in the order of use
-- turn:MODEL  requests that took turns
-- speed:KEY   tokens a second that a replica was seen to give
local shared = ngx.shared.gateway

local random = math.random

-- The order of two replicas that serve, by what was noted of them.
local function by_rank(one, other)
    if one.down ~= other.down then
        return other.down
    elseif one.rank ~= other.rank then
        return one.rank < other.rank
    end
    return one.last < other.last
end

local RANKS = {}

function RANKS.lru(noted)
    return noted.flight
end

function RANKS.shortest_queue(noted)
    return noted.flight / (noted.replica.weight or 1)
end

-- A weighted draw of all places at once: the faster one is, the more likely it is early.
function RANKS.lottery(noted)
    local weight = noted.replica.weight or shared:get("speed:" .. noted.replica.key) or 1
    return weight > 0 and -random() ^ (1 / weight) or 1
end

function RANKS.round_robin(noted, model, place, turn)
    return (place - turn) % #model.replicas
end

-- Each conversation has its own order of replicas, the same in every nginx worker and after a restart.
function RANKS.prefix(noted, model, place, turn, conversation, bound)
    local score = ngx.crc32_long(conversation .. noted.replica.key) / 2 ^ 32
    return noted.flight > bound and 1 + noted.flight or -score
end

local M = {}

--- The replicas worth trying, best first; those that start are left out.
function M.candidates(model, conversation)
    local replicas = model.replicas
    if #replicas == 1 then
        return health.state(replicas[1]) ~= "starting" and replicas or {}
    end
    local noted, total = {}, 0
    for place = 1, #replicas do
        local replica = replicas[place]
        local state = health.state(replica)
        if state ~= "starting" then
            local flight = counts.uses(replica.key)
            total = total + flight
            noted[#noted + 1] = {
                replica = replica, place = place, down = state == "down", flight = flight,
                last = shared:get(replica.used) or 0,
            }
        end
    end
    local rank = RANKS[model.balance]
    local turn = model.balance == "round_robin" and shared:incr("turn:" .. model.name, 1, 0) or 0
    local bound = LOAD * (total + 1) / math.max(1, #noted)
    for n = 1, #noted do
        noted[n].rank = rank(noted[n], model, noted[n].place, turn, conversation or "", bound)
    end
    table.sort(noted, by_rank)
    for n = 1, #noted do
        noted[n] = noted[n].replica
    end
    return noted
end

--- The replica that `candidates` would name first where a model is shared by `lru`, found without a list.
function M.first(model)
    local replicas = model.replicas
    local best, best_down, best_flight, best_last
    for place = 1, #replicas do
        local replica = replicas[place]
        local state = health.state(replica)
        if state ~= "starting" then
            local down, flight = state == "down", counts.uses(replica.key)
            if not best or (best_down and not down) or (best_down == down and flight < best_flight) then
                best, best_down, best_flight, best_last = replica, down, flight, nil
            elseif best_down == down and best_flight == flight then
                best_last = best_last or shared:get(best.used) or 0
                local last = shared:get(replica.used) or 0
                if last < best_last then
                    best, best_last = replica, last
                end
            end
        end
    end
    return best
end

--- The replicas that are left for a request which some have failed.
function M.others(one)
    local left = {}
    for _, replica in ipairs(M.candidates(one.model, one.conversation)) do
        if not one.tried[replica] then
            left[#left + 1] = replica
        end
    end
    return left
end

-- Places in the order of use: the time, and within a millisecond one after the other.
local place = 0

local function next_place()
    local now = ngx.now()
    place = now > place and now or place + 1e-6
    return place
end

--- Counts a request at a replica; returns how many it has then.
function M.hold(one, replica)
    local flight = counts.take(replica.key)
    if not replica.limit or flight <= replica.limit then
        concurrent(replica, flight)
    end
    if #one.model.replicas > 1 then
        shared:set(replica.used, next_place())
    end
    one.replica, one.held = replica, true
    return flight
end

function M.release(one)
    if one.held then
        one.held = false
        counts.give_back(one.replica.key)
    end
end

--- Holds the first of these replicas that has room; returns whether one has.
function M.hold_free(one, candidates)
    for n = 1, #candidates do
        local replica = candidates[n]
        if M.hold(one, replica) <= (replica.limit or math.huge) then
            return true
        end
        M.release(one)
    end
    return false
end

return M
