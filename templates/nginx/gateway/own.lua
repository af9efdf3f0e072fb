--- What the gateway answers itself: which models there are, how they are, and what was counted.

local cjson = require "cjson.safe"
local engines = require "gateway.engines"
local errors = require "gateway.errors"
local health = require "gateway.health"
local keys = require "gateway.keys"
local page = require "gateway.page"
local paths = require "gateway.paths"
local report = require "gateway.report"
local routes = require "gateway.routes"

local shared = ngx.shared.gateway
local answer, refuse = errors.answer, errors.refuse

-- Told to who may see counters only.
local COUNTERS = {
    ["/metrics"] = function()
        return answer(200, report.text(), "text/plain; version=0.0.4")
    end,
    ["/gateway/stat"] = function()
        return answer(200, cjson.encode(report.stat()))
    end,
    ["/gateway/engines"] = engines.list,
    ["/gateway/engines/*/metrics"] = engines.metrics,
}

local M = {}

--- Whether a key may ask for a model by this name.
function M.may(key, name)
    if keys.may(key, name) then
        return true
    end
    -- An alias is allowed to whom the model is.
    local model = routes.models[name]
    return model ~= nil and keys.may(key, model.name)
end

--- A model that may not be asked for is as good as none.
function M.refuse_unknown(key, name)
    local shown = errors.shown(name)
    local near = routes.nearest(shown, function(other)
        return M.may(key, other)
    end)
    local hint = near and "; did you mean '" .. near .. "'?" or ""
    return refuse(404, "model_not_found", "the model '" .. shown .. "' does not exist" .. hint)
end

local function card(name)
    local created = shared:get("created:" .. name) or ngx.time()
    return cjson.encode({ id = name, object = "model", created = created, owned_by = "llm-appliance" })
end

local function told(key)
    local found = {}
    for _, name in ipairs(routes.names) do
        if M.may(key, name) then
            found[#found + 1] = name
        end
    end
    return found
end

local function list_models(key, only)
    local cards = {}
    for _, name in ipairs(only and { only } or told(key)) do
        cards[#cards + 1] = card(name)
    end
    return answer(200, '{"object":"list","data":[' .. table.concat(cards, ",") .. "]}")
end

-- Ollama's list: the models that are asked by its own routes.
local function list_tags(key, only)
    local found = {}
    for _, name in ipairs(only and { only } or told(key)) do
        local model = routes.models[name]
        if model and paths.upstream(model, { path = "/api/chat", extra = true }) then
            found[#found + 1] = cjson.encode({ name = name, model = name })
        end
    end
    return answer(200, '{"models":[' .. table.concat(found, ",") .. "]}")
end

local function states(key)
    local models, anxious = {}, {}
    for _, name in ipairs(told(key)) do
        local model = routes.models[name]
        if model then
            models[name] = health.state_of(model)
            if models[name] ~= "up" then
                -- Whoever waits for a model that starts learns it at once, not at the next round.
                for _, replica in ipairs(model.replicas) do
                    anxious[#anxious + 1] = replica
                end
            end
        end
    end
    health.suspect(anxious)
    return models
end

-- Everybody may ask whether the gateway lives; what models there are, only who may use them.
local function tell_health(one)
    if keys.open(one.key) then
        return answer(200, cjson.encode({ status = "ok", models = states(one.key) }))
    end
    return answer(200, '{"status":"ok"}')
end

-- Who may come inside may keep requests from a replica: `?replica=NAME`, and `&off=1` lets them come again.
local function drain()
    local asked = ngx.req.get_uri_args(4)
    local name = asked.replica
    if type(name) ~= "string" or not health.drain(name, not asked.off) then
        return refuse(404, "not_found", "no replica is called " .. errors.shown(tostring(name)))
    end
    return answer(200, '{"status":"ok"}')
end

--- Answers one of the gateway's own paths; `name` is the model that the path names.
function M.answer(one, path, name)
    if path == "/health" then
        one.key = keys.known()
        return tell_health(one)
    elseif page.holds(path) then
        return page.send(path)
    end
    if path == "/gateway/drain" then
        return drain()
    end
    local key = keys.check()
    one.key = key
    local tell = COUNTERS[path]
    if tell then
        if not keys.may_count(key) then
            return refuse(403, "not_allowed", "this key may not see counters")
        end
        return tell(name)
    end
    if path == "/gateway/page" then
        return answer(200, page.text(told(key), keys.may_count(key)))
    end
    if name and not (routes.knows(name) and M.may(key, name)) then
        return M.refuse_unknown(key, name)
    elseif path == "/v1/models/*" then
        return answer(200, card(name))
    elseif path == "/api/tags" then
        return list_tags(key, name)
    end
    return list_models(key, name)
end

return M
