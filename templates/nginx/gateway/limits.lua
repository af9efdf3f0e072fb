--- How much each client may ask for: requests and tokens a minute, and requests at the same time.

local counts = require "gateway.counts"
local errors = require "gateway.errors"

local floor = math.floor

local WINDOW = 60 -- seconds
local KEPT = 2 * WINDOW + 5 -- seconds that a counter is there

-- r:KEY:WINDOW and t:KEY:WINDOW, requests and tokens of one minute
local shared = ngx.shared.limits

local M = {}

-- What a counter of the minute before ended with. Nothing is added there any more, but perhaps by an nginx worker whose
-- clock has not ticked yet: so it is looked at once a second.
local function ended(name)
    return shared:get(name) or 0
end

-- The two counters of a key that hold now; their names are made once a minute.
local function windows(key)
    local now = ngx.time()
    if key.seen == now then
        return
    end
    key.seen = now
    local window = floor(now / WINDOW)
    if key.window ~= window then
        key.window = window
        key.requests, key.requests_before = "r:" .. key.name .. ":" .. window, "r:" .. key.name .. ":" .. window - 1
        key.tokens, key.tokens_before = "t:" .. key.name .. ":" .. window, "t:" .. key.name .. ":" .. window - 1
    end
    key.requests_ended, key.tokens_ended = ended(key.requests_before), ended(key.tokens_before)
end

-- What was used within the last minute, going by this minute and the part of the one before that still counts.
local function weighted(current, before)
    return before * (1 - ngx.now() / WINDOW % 1) + current
end

local function seconds_left()
    return math.ceil(WINDOW - ngx.now() % WINDOW)
end

local function left(limit, sum)
    local rest = floor(limit - sum)
    return rest > 0 and rest or 0
end

local function refuse(key, code, what)
    return errors.refuse(
        429, code, "the key '" .. key.name .. "' may have " .. what, code == "parallel_limit" and 1 or seconds_left()
    )
end

--- Counts a request; ends it where the key has had its share. What is taken here is given back by `done`.
function M.take(one, key)
    local var = ngx.var
    if key.rpm or key.tpm then
        windows(key)
    end
    if key.rpm then
        local current = shared:incr(key.requests, 1, 0, KEPT)
        local sum = weighted(current, key.requests_ended)
        -- Variables that nginx makes headers of: Lua's own way to set one costs four times as much.
        var.gw_limit_requests = key.rpm_text
        var.gw_left_requests = left(key.rpm, sum)
        if sum > key.rpm then
            shared:incr(key.requests, -1)
            return refuse(key, "request_limit", key.rpm .. " requests a minute")
        end
    end
    if key.tpm then
        local sum = weighted(shared:get(key.tokens) or 0, key.tokens_ended)
        var.gw_limit_tokens = key.tpm_text
        var.gw_left_tokens = left(key.tpm, sum)
        if sum >= key.tpm then
            return refuse(key, "token_limit", key.tpm .. " tokens a minute")
        end
    end
    if key.parallel then
        one.parallel = key.place
        if counts.take(one.parallel) > key.parallel then
            return refuse(key, "parallel_limit", key.parallel .. " requests at the same time")
        end
    end
end

--- The request is over and took so many tokens.
function M.done(one, tokens)
    if one.parallel then
        counts.give_back(one.parallel)
        one.parallel = nil
    end
    local key = one.key
    if key and key.tpm and tokens > 0 then
        windows(key)
        shared:incr(key.tokens, tokens, 0, KEPT)
    end
end

return M
