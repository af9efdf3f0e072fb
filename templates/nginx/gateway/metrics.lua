--- Counters of what was served: gathered in each nginx worker, added up once a second.

local EVERY = 1 -- seconds
local FIRST = { 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30 } -- seconds to the first byte
local WHOLE = { 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600 } -- seconds of a request from its begin to its end

-- Each counter by its finished Prometheus line; those of replicas by name and key.
local shared = ngx.shared.metrics

local M = {}

local by_model, by_replica, by_key, refused = {}, {}, {}, {}

local function of_model(name)
    local found = by_model[name]
    if not found then
        found = { codes = {}, tokens_in = 0, tokens_out = 0, retries = 0, first = { sum = 0 }, whole = { sum = 0 } }
        by_model[name] = found
    end
    return found
end

local function of_replica(key)
    local found = by_replica[key]
    if not found then
        found = { requests = 0, last = 0, spoke = 0, peak = 0, tokens = 0, seconds = 0, first_bytes = 0, first_byte_sum = 0 }
        by_replica[key] = found
    end
    return found
end

local function of_key(name, model)
    local models = by_key[name]
    if not models then
        models = {}
        by_key[name] = models
    end
    local found = models[model]
    if not found then
        found = { requests = 0, tokens_in = 0, tokens_out = 0 }
        models[model] = found
    end
    return found
end

-- Each in one place of the histogram only; they are added up when they are flushed. The fast ones are the many.
local function observe(histogram, bounds, seconds)
    local n = 1
    while seconds > (bounds[n] or seconds) do
        n = n + 1
    end
    histogram[n] = (histogram[n] or 0) + 1
    histogram.sum = histogram.sum + seconds
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
    local model = of_model(one.model.name)
    model.codes[status] = (model.codes[status] or 0) + 1
    model.tokens_in = model.tokens_in + tokens_in
    model.tokens_out = model.tokens_out + tokens_out
    if one.try > 1 then
        model.retries = model.retries + one.try - 1
    end
    local first = one.first_byte
    if first then
        observe(model.first, FIRST, first)
    end
    observe(model.whole, WHOLE, seconds)
    if one.key then
        local key = of_key(one.key.name, one.model.name)
        key.requests = key.requests + 1
        key.tokens_in = key.tokens_in + tokens_in
        key.tokens_out = key.tokens_out + tokens_out
    end
    if one.replica then
        local replica = of_replica(one.replica.key)
        replica.requests = replica.requests + 1
        replica.last = ngx.time()
        if first then
            replica.spoke = replica.last
            replica.first_bytes = replica.first_bytes + 1
            replica.first_byte_sum = replica.first_byte_sum + first
        end
        if tokens_out > 0 then
            replica.tokens = replica.tokens + tokens_out
            replica.seconds = replica.seconds + seconds
        end
    end
end

--- Counts a request that came to no model; `one` may be nil.
function M.refuse(one, status)
    local key = one and one.key and one.key.name or ""
    local codes = refused[key] or {}
    refused[key] = codes
    codes[status] = (codes[status] or 0) + 1
end

-- A name of a hand-made key file may hold anything.
local ESCAPED = { ["\\"] = "\\\\", ['"'] = '\\"', ["\n"] = "\\n" }

--- A value of a label.
function M.quoted(text)
    return '"' .. text:gsub('[\\"\n]', ESCAPED) .. '"'
end
local quoted = M.quoted

local function add(line, amount)
    if amount ~= 0 then
        shared:incr(line, amount, 0)
    end
end

local function flush_histogram(name, label, histogram, bounds)
    local sum = 0
    for n = 1, #bounds + 1 do
        sum = sum + (histogram[n] or 0)
        add(name .. "_bucket" .. label .. ',le="' .. (bounds[n] or "+Inf") .. '"}', sum)
    end
    add(name .. "_sum" .. label .. "}", histogram.sum)
    add(name .. "_count" .. label .. "}", sum)
end

local function flush_model(name, model)
    local label = "{model=" .. quoted(name)
    for status, amount in pairs(model.codes) do
        add("gateway_requests_total" .. label .. ',code="' .. status .. '"}', amount)
    end
    add("gateway_input_tokens_total" .. label .. "}", model.tokens_in)
    add("gateway_output_tokens_total" .. label .. "}", model.tokens_out)
    add("gateway_retries_total" .. label .. "}", model.retries)
    flush_histogram("gateway_first_byte_seconds", label, model.first, FIRST)
    flush_histogram("gateway_request_seconds", label, model.whole, WHOLE)
end

local function flush_key(name, models)
    for model, noted in pairs(models) do
        local label = "{key=" .. quoted(name) .. ",model=" .. quoted(model) .. "}"
        add("gateway_key_requests_total" .. label, noted.requests)
        add("gateway_key_input_tokens_total" .. label, noted.tokens_in)
        add("gateway_key_output_tokens_total" .. label, noted.tokens_out)
    end
end

local function flush_replica(key, noted)
    for _, what in ipairs({ "requests", "tokens", "seconds", "first_bytes", "first_byte_sum" }) do
        add("replica:" .. what .. ":" .. key, noted[what])
    end
    for _, what in ipairs({ "last", "spoke", "peak" }) do
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
    for name, models in pairs(by_key) do
        flush_key(name, models)
    end
    for name, codes in pairs(refused) do
        for status, amount in pairs(codes) do
            add("gateway_refused_total{key=" .. quoted(name) .. ',code="' .. status .. '"}', amount)
        end
    end
    by_model, by_replica, by_key, refused = {}, {}, {}, {}
end

function M.start()
    ngx.timer.every(EVERY, M.flush)
end

return M
