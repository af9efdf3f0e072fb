--- What was counted, told: for Prometheus, and of each replica.

local cjson = require "cjson.safe"
local counts = require "gateway.counts"
local health = require "gateway.health"
local metrics = require "gateway.metrics"
local routes = require "gateway.routes"

local quoted = metrics.quoted
local shared = ngx.shared.metrics

local M = {}

local KINDS = {
    { "gateway_requests_total", "counter", "Requests by model and status." },
    { "gateway_input_tokens_total", "counter", "Tokens of requests, as the engines count them." },
    { "gateway_output_tokens_total", "counter", "Tokens of answers, as the engines count them." },
    { "gateway_retries_total", "counter", "Requests sent to another replica." },
    { "gateway_first_byte_seconds", "histogram", "Time until an answer began." },
    { "gateway_request_seconds", "histogram", "Time until an answer was over." },
    { "gateway_key_requests_total", "counter", "Requests by key and model." },
    { "gateway_key_input_tokens_total", "counter", "Tokens of requests by key and model." },
    { "gateway_key_output_tokens_total", "counter", "Tokens of answers by key and model." },
    { "gateway_refused_total", "counter", "Requests that came to no model, by key and status." },
}

-- What was counted, by its kind.
local function counted()
    local found = {}
    for _, kind in ipairs(KINDS) do
        found[kind[1]] = {}
    end
    local names = shared:get_keys(0)
    table.sort(names)
    for _, name in ipairs(names) do
        local kind = name:match("^[%l_]+")
        local list = found[kind] or found[kind:match("^(.*)_%l+$")]
        if list then
            list[#list + 1] = name
        end
    end
    return found
end

local function heads(lines)
    local found = counted()
    for _, kind in ipairs(KINDS) do
        lines[#lines + 1] = "# HELP " .. kind[1] .. " " .. kind[3]
        lines[#lines + 1] = "# TYPE " .. kind[1] .. " " .. kind[2]
        for _, name in ipairs(found[kind[1]]) do
            lines[#lines + 1] = name .. " " .. string.format("%.14g", shared:get(name) or 0)
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

local function each_replica(lines, name, kind, help, value)
    each_model(lines, name, kind, help, function(tell)
        for _, model in ipairs(models()) do
            for _, replica in ipairs(model.replicas) do
                tell("model=" .. quoted(model.name) .. ",replica=" .. quoted(replica.name), value(replica))
            end
        end
    end)
end

--- All counters in Prometheus' text format.
function M.text()
    metrics.flush()
    local lines = {}
    heads(lines)
    each_replica(lines, "gateway_replica_up", "gauge", "Whether a replica serves.", function(replica)
        return health.state(replica) == "up" and 1 or 0
    end)
    each_replica(lines, "gateway_replica_in_flight", "gauge", "Requests that a replica works on.", function(replica)
        return counts.uses(replica.key)
    end)
    each_replica(lines, "gateway_replica_requests_total", "counter", "Requests that a replica answered.", function(replica)
        return shared:get("replica:requests:" .. replica.key) or 0
    end)
    each_replica(lines, "gateway_replica_output_tokens_total", "counter", "Tokens that a replica made.", function(replica)
        return shared:get("replica:tokens:" .. replica.key) or 0
    end)
    each_model(lines, "gateway_queue_length", "gauge", "Requests that wait for a replica.", function(tell)
        for _, model in ipairs(models()) do
            tell("model=" .. quoted(model.name), counts.uses("queue:" .. model.name))
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
    metrics.flush()
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

return M
