--- How much each client may ask for: requests and tokens a minute, and requests at the same time.

local counts = require "gateway.counts"
local errors = require "gateway.errors"

local WINDOW = 60 -- seconds

-- r:KEY:WINDOW and t:KEY:WINDOW, requests and tokens of one minute
local shared = ngx.shared.limits

local M = {}

-- What was used within the last minute, going by this minute and the part of the one before that still counts.
local function used(kind, key, step)
    local now = ngx.now()
    local window = math.floor(now / WINDOW)
    local name = kind .. key .. ":"
    local current = step and shared:incr(name .. window, step, 0, 2 * WINDOW + 5) or shared:get(name .. window)
    local before = shared:get(name .. window - 1) or 0
    return before * (1 - now / WINDOW % 1) + (current or 0)
end

local function seconds_left()
    return math.ceil(WINDOW - ngx.now() % WINDOW)
end

local function tell(what, limit, left)
    local header = ngx.header
    header["X-RateLimit-Limit-" .. what] = limit
    header["X-RateLimit-Remaining-" .. what] = math.max(0, math.floor(left))
    header["X-RateLimit-Reset-" .. what] = seconds_left() .. "s"
end

local function refuse(key, code, what)
    return errors.refuse(
        429, code, "the key '" .. key.name .. "' may have " .. what, code == "parallel_limit" and 1 or seconds_left()
    )
end

--- Counts a request; ends it where the key has had its share. What is taken here is given back by `done`.
function M.take(one, key)
    if key.rpm then
        local sum = used("r:", key.name, 1)
        tell("Requests", key.rpm, key.rpm - sum)
        if sum > key.rpm then
            used("r:", key.name, -1)
            return refuse(key, "request_limit", key.rpm .. " requests a minute")
        end
    end
    if key.tpm then
        local sum = used("t:", key.name)
        tell("Tokens", key.tpm, key.tpm - sum)
        if sum >= key.tpm then
            return refuse(key, "token_limit", key.tpm .. " tokens a minute")
        end
    end
    if key.parallel then
        one.parallel = "key:" .. key.name
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
        used("t:", key.name, tokens)
    end
end

return M
