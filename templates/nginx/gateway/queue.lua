--- Requests that wait for a replica with room, first come first served, and not too many.

local balance = require "gateway.balance"
local counts = require "gateway.counts"
local errors = require "gateway.errors"
local semaphore = require "ngx.semaphore"

local SIZE, PATIENCE = 64, 60 -- requests and seconds, where a model does not say
local TICK = 0.02 -- seconds; covers room made by the other nginx workers

-- Who waits in this nginx worker, by model: first, last, and one table for each request in between.
local rooms = {}
local ticking = false

local M = {}

local function room_of(model)
    local room = rooms[model.name]
    if not room then
        room = { first = 1, last = 0 }
        rooms[model.name] = room
    end
    return room
end

-- The request whose turn it is; those that gave up are skipped.
local function head(room)
    while room.first <= room.last do
        local one = room[room.first]
        if not one.gone then
            return one
        end
        room[room.first] = nil
        room.first = room.first + 1
    end
end

local function wake(room)
    local one = head(room)
    if one and one.semaphore:count() < 1 then
        one.semaphore:post(1)
    end
end

local function tick(premature)
    ticking = false
    local waiting = false
    for name, room in pairs(rooms) do
        if head(room) then
            waiting = true
            wake(room)
        else
            rooms[name] = nil
        end
    end
    if waiting and not premature then
        ticking = ngx.timer.at(TICK, tick) and true
    end
end

local function leave(one)
    one.place.gone = true
    one.place = nil
    counts.give_back(one.queued)
end

local function wait(one, model, room)
    local place = { semaphore = semaphore.new(0), gone = false }
    room.last = room.last + 1
    room[room.last] = place
    one.place = place
    if not ticking then
        ticking = ngx.timer.at(TICK, tick) and true
    end
    local deadline = ngx.now() + (model.patience or PATIENCE)
    while true do
        local left = deadline - ngx.now()
        -- A wait of less than a millisecond is none, and time stands still for whoever does not wait.
        if left < 0.001 then
            return false
        end
        place.semaphore:wait(left)
        if head(room) == place then
            if balance.hold_free(one, balance.candidates(model, one.conversation)) then
                return true
            end
        end
    end
end

--- Holds one of these replicas for a request, or waits for room; ends the request where there is none.
function M.hold(one, model, candidates)
    local room = room_of(model)
    -- Whoever comes while others wait stands behind them.
    if not head(room) and balance.hold_free(one, candidates) then
        return
    end
    local queued = "queue:" .. model.name
    if counts.take(queued) > (model.queue or SIZE) then
        counts.give_back(queued)
        return errors.refuse(
            429, "queue_full", "the model '" .. model.name .. "' has all it can do, and its queue is full",
            errors.RETRY_AFTER
        )
    end
    one.queued = queued
    local got = wait(one, model, room)
    leave(one)
    wake(room)
    if not got then
        return errors.refuse(
            503, "queue_timeout", "the model '" .. model.name .. "' had no room in time", errors.RETRY_AFTER
        )
    end
end

--- A request has ended: its place is free, or was given up while it waited.
function M.done(one)
    if one.place then
        leave(one)
    end
    local room = one.model and rooms[one.model.name]
    if room then
        wake(room)
    end
end

return M
