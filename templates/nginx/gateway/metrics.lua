--- Counters of what was served: gathered in each nginx worker, added up once a second, told on request.

local cjson = require "cjson.safe"
local counts = require "gateway.counts"
local health = require "gateway.health"
local routes = require "gateway.routes"

local EVERY = 1 -- seconds
local BUCKETS = { 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30 } -- seconds to the first byte

-- Each counter by its finished Prometheus line; those of replicas by name and key.
local shared = ngx.shared.metrics

local M = {}

local by_model, by_replica = {}, {}

local function of_model(name)
    local found = by_model[name]
    if not found then
        found = { codes = {}, tokens_in = 0, tokens_out = 0, retries = 0, first_bytes = 0, first_byte_sum = 0, buckets = {} }
        by_model[name] = found
    end
    return found
end

local function of_replica(key)
    local found = by_replica[key]
    if not found then
        found = { requests = 0, last = 0, peak = 0, tokens = 0, seconds = 0, first_bytes = 0, first_byte_sum = 0 }
        by_replica[key] = found
    end
    return found
end

--- Notes how many requests a replica has at the same time.
function M.concurrent(replica, flight)
    local noted = of_replica(replica.key)
    if flight > noted.peak then
        noted.peak = flight
    end
end

--- Counts a request that is over.
function M.count(one, status, seconds, tokens_in, tokens_out)
    local model = of_model(one.model and one.model.name or "")
    model.codes[status] = (model.codes[status] or 0) + 1
    model.tokens_in = model.tokens_in + tokens_in
    model.tokens_out = model.tokens_out + tokens_out
    if one.try > 1 then
        model.retries = model.retries + one.try - 1
    end
    local first = one.first_byte
    if first then
        model.first_bytes = model.first_bytes + 1
        model.first_byte_sum = model.first_byte_sum + first
        for n = #BUCKETS, 1, -1 do
            if first > BUCKETS[n] then
                break
            end
            model.buckets[n] = (model.buckets[n] or 0) + 1
        end
    end
    if one.replica then
        local replica = of_replica(one.replica.key)
        replica.requests = replica.requests + 1
        replica.last = ngx.time()
        if first then
            replica.first_bytes = replica.first_bytes + 1
            replica.first_byte_sum = replica.first_byte_sum + first
        end
        if tokens_out > 0 then
            replica.tokens = replica.tokens + tokens_out
            replica.seconds = replica.seconds + seconds
        end
    end
end

local function add(line, amount)
    if amount ~= 0 then
        shared:incr(line, amount, 0)
    end
end

local function flush_model(name, model)
    local label = '{model="' .. name .. '"'
    for status, amount in pairs(model.codes) do
        add("gateway_requests_total" .. label .. ',code="' .. status .. '"}', amount)
    end
    add("gateway_input_tokens_total" .. label .. "}", model.tokens_in)
    add("gateway_output_tokens_total" .. label .. "}", model.tokens_out)
    add("gateway_retries_total" .. label .. "}", model.retries)
    add("gateway_first_byte_seconds_sum" .. label .. "}", model.first_byte_sum)
    add("gateway_first_byte_seconds_count" .. label .. "}", model.first_bytes)
    add("gateway_first_byte_seconds_bucket" .. label .. ',le="+Inf"}', model.first_bytes)
    for n, amount in pairs(model.buckets) do
        add("gateway_first_byte_seconds_bucket" .. label .. ',le="' .. BUCKETS[n] .. '"}', amount)
    end
end

local function flush_replica(key, noted)
    for _, what in ipairs({ "requests", "tokens", "seconds", "first_bytes", "first_byte_sum" }) do
        add("replica:" .. what .. ":" .. key, noted[what])
    end
    for _, what in ipairs({ "last", "peak" }) do
        local name = "replica:" .. what .. ":" .. key
        if noted[what] > (shared:get(name) or 0) then
            shared:set(name, noted[what])
        end
    end
    local seconds = shared:get("replica:seconds:" .. key) or 0
    if noted.tokens > 0 and seconds > 0 then
        ngx.shared.gateway:set("speed:" .. key, shared:get("replica:tokens:" .. key) / seconds)
    end
end

--- Adds what this nginx worker has counted to what all have.
function M.flush()
    for name, model in pairs(by_model) do
        flush_model(name, model)
    end
    for key, noted in pairs(by_replica) do
        flush_replica(key, noted)
    end
    by_model, by_replica = {}, {}
end

local KINDS = {
    { "gateway_requests_total", "counter", "Requests by model and status." },
    { "gateway_input_tokens_total", "counter", "Tokens of requests, as the engines count them." },
    { "gateway_output_tokens_total", "counter", "Tokens of answers, as the engines count them." },
    { "gateway_retries_total", "counter", "Requests sent to another replica." },
    { "gateway_first_byte_seconds", "histogram", "Time until an answer began." },
}

local function heads(lines)
    for _, kind in ipairs(KINDS) do
        lines[#lines + 1] = "# HELP " .. kind[1] .. " " .. kind[3]
        lines[#lines + 1] = "# TYPE " .. kind[1] .. " " .. kind[2]
        for _, name in ipairs(M.sorted) do
            if name:find(kind[1], 1, true) == 1 then
                lines[#lines + 1] = name .. " " .. string.format("%.14g", shared:get(name) or 0)
            end
        end
    end
end

local function each_model(lines, name, kind, help, value)
    lines[#lines + 1] = "# HELP " .. name .. " " .. help
    lines[#lines + 1] = "# TYPE " .. name .. " " .. kind
    value(function(label, number)
        lines[#lines + 1] = name .. "{" .. label .. "} " .. number
    end)
end

local function models()
    local found = {}
    for _, name in ipairs(routes.names) do
        local model = routes.models[name]
        if model and model.name == name then
            found[#found + 1] = model
        end
    end
    return found
end

--- All counters in Prometheus' text format.
function M.text()
    M.flush()
    M.sorted = shared:get_keys(0)
    table.sort(M.sorted)
    local lines = {}
    heads(lines)
    M.sorted = nil
    each_model(lines, "gateway_replica_up", "gauge", "Whether a replica serves.", function(tell)
        for _, model in ipairs(models()) do
            for _, replica in ipairs(model.replicas) do
                local label = 'model="' .. model.name .. '",replica="' .. replica.name .. '"'
                tell(label, health.state(replica) == "up" and 1 or 0)
            end
        end
    end)
    each_model(lines, "gateway_replica_in_flight", "gauge", "Requests that a replica works on.", function(tell)
        for _, model in ipairs(models()) do
            for _, replica in ipairs(model.replicas) do
                tell('model="' .. model.name .. '",replica="' .. replica.name .. '"', counts.uses(replica.key))
            end
        end
    end)
    each_model(lines, "gateway_queue_length", "gauge", "Requests that wait for a replica.", function(tell)
        for _, model in ipairs(models()) do
            tell('model="' .. model.name .. '"', counts.uses("queue:" .. model.name))
        end
    end)
    return table.concat(lines, "\n") .. "\n"
end

local function stat_of(model, replica)
    local function noted(what)
        return shared:get("replica:" .. what .. ":" .. replica.key) or 0
    end
    local flight, last = counts.uses(replica.key), noted("last")
    local first_bytes, seconds = noted("first_bytes"), noted("seconds")
    return {
        name = replica.name,
        state = health.state(replica),
        in_flight = flight,
        limit = replica.limit or cjson.null,
        max_concurrency = noted("peak"),
        requests = noted("requests"),
        output_tokens = noted("tokens"),
        seconds_since_last = last > 0 and ngx.time() - last or cjson.null,
        tokens_per_second = seconds > 0 and noted("tokens") / seconds or cjson.null,
        ttft = first_bytes > 0 and noted("first_byte_sum") / first_bytes or cjson.null,
    }, flight
end

--- What each replica does and did, as a table for JSON.
function M.stat()
    M.flush()
    local found = {}
    for _, model in ipairs(models()) do
        local replicas, busy, up = {}, 0, 0
        for n, replica in ipairs(model.replicas) do
            local flight
            replicas[n], flight = stat_of(model, replica)
            busy = busy + (flight > 0 and 1 or 0)
            up = up + (replicas[n].state == "up" and 1 or 0)
        end
        found[model.name] = {
            strategy = model.balance, total = #replicas, up = up, busy = busy, idle = math.max(0, up - busy),
            queue = counts.uses("queue:" .. model.name), replicas = replicas,
        }
    end
    return { models = found }
end

function M.start()
    ngx.timer.every(EVERY, M.flush)
end

return M
