--- The engines' own counters, each replica's by its name, and where Prometheus finds them.

local cjson = require "cjson.safe"
local errors = require "gateway.errors"
local health = require "gateway.health"
local routes = require "gateway.routes"

local TIMEOUTS = { 1000, 1000, 5000 } -- milliseconds to connect, to send, between two pieces
local MOST = 16 * 1024 * 1024 -- bytes of an answer
-- The older protocol: an engine must not answer in chunks then.
local ASK = "GET %s HTTP/1.0\r\nHost: engine\r\nConnection: close\r\n\r\n"

local refuse = errors.refuse

local M = {}

-- Every replica that has counters, by its name: replica and model. Adapters have the replicas of their model.
local function counted()
    local found = {}
    for _, name in ipairs(routes.names) do
        local model = routes.models[name]
        if model and model.name == name and type(model.metrics) == "string" then
            for _, replica in ipairs(model.replicas) do
                found[replica.name] = found[replica.name] or { replica = replica, model = model }
            end
        end
    end
    return found
end

-- The whole answer of a replica: status and body, or nil and why there is none.
local function fetch(address, path)
    local socket, problem = health.connect(address, unpack(TIMEOUTS))
    if not socket then
        return nil, health.socket_exists(address) and problem or "it is not running"
    end
    local ok
    ok, problem = socket:send(ASK:format(path))
    local pieces, size = {}, 0
    while ok do
        local piece
        piece, problem = socket:receiveany(65536)
        size = size + (piece and #piece or 0)
        if not piece or size > MOST then
            break
        end
        pieces[#pieces + 1] = piece
    end
    socket:close()
    local status, body = table.concat(pieces):match("^HTTP/1%.%d (%d%d%d).-\r\n\r\n(.*)$")
    if not status or size > MOST or (problem and problem ~= "closed") then
        return nil, problem or "too much"
    end
    return tonumber(status), body
end

--- Answers with what an engine counts, byte for byte.
function M.metrics(name)
    local found = counted()[name]
    if not found then
        return refuse(404, "no_counters", "no replica '" .. errors.shown(name) .. "' has counters; GET /gateway/engines lists those")
    end
    local status, body = fetch(found.replica.address, found.model.metrics)
    if status ~= 200 then
        local why = status and "answers " .. status or "does not answer: " .. body
        return refuse(502, "model_unavailable", "the replica '" .. name .. "' " .. why)
    end
    ngx.header["X-Content-Type-Options"] = "nosniff"
    return errors.answer(200, body, "text/plain; version=0.0.4")
end

--- Answers with the replicas that have counters, as Prometheus' HTTP service discovery wants them.
function M.list()
    local host = ngx.var.http_host or ""
    if not host:find("^[%w.:%[%]-]+$") then
        return refuse(400, "bad_request", "the Host header is missing")
    end
    local targets = {}
    for name, found in pairs(counted()) do
        targets[#targets + 1] = cjson.encode({
            targets = { host },
            labels = { __metrics_path__ = "/gateway/engines/" .. name .. "/metrics", model = found.model.name, replica = name },
        })
    end
    table.sort(targets)
    return errors.answer(200, "[" .. table.concat(targets, ",") .. "]")
end

return M
