--- The status page: its files for a browser, and all that it shows in one answer.

local cjson = require "cjson.safe"
local errors = require "gateway.errors"
local file = require "gateway.file"
local health = require "gateway.health"
local paths = require "gateway.paths"
local report = require "gateway.report"
local routes = require "gateway.routes"

local HOME = ngx.config.prefix()
-- What the plan says of the models, and whether there is a page at all.
local PLAN = HOME .. "page.json"
local FILES = {
    ["/"] = { "index.html", "text/html; charset=utf-8" },
    ["/gateway/page.css"] = { "page.css", "text/css; charset=utf-8" },
    ["/gateway/page.js"] = { "page.js", "text/javascript; charset=utf-8" },
    ["/gateway/page.svg"] = { "page.svg", "image/svg+xml" },
}
local TOLD = "/gateway/page"
-- Nothing but our own files runs there, no text becomes markup, and no other site shows the page or learns its address.
local GUARD = {
    ["Content-Security-Policy"] = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        .. "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ["X-Content-Type-Options"] = "nosniff",
    ["Referrer-Policy"] = "no-referrer",
    ["Cross-Origin-Resource-Policy"] = "same-origin",
    ["Cache-Control"] = "no-cache",
}

local M = {}

local plan = { models = {}, devices = {} }
local changed = file.watch(PLAN)
-- By path: a function that tells of changes, the bytes, and a name for them.
local kept = {}

local function open(on)
    for path in pairs(FILES) do
        paths.own(path, on)
    end
    paths.own(TOLD, on)
end

--- Rereads the plan when it changed; without one there is no page.
function M.reread()
    local text = changed()
    if text == false then
        return
    end
    local document = text and cjson.decode(text)
    if type(document) ~= "table" or type(document.models) ~= "table" then
        document = { on = false, models = {} }
    end
    plan = document
    open(plan.on == true)
end

local function bytes_of(path)
    local known = kept[path]
    if not known then
        known = { changed = file.watch(HOME .. "page/" .. FILES[path][1]) }
        kept[path] = known
    end
    local text = known.changed()
    if text ~= false then
        known.text, known.tag = text, text and '"' .. ngx.md5(text) .. '"'
    end
    return known
end

--- Whether a path is one of the page's files, which everybody may have: nothing is told in them.
function M.holds(path)
    return FILES[path] ~= nil
end

--- Answers one of the page's files.
function M.send(path)
    local known = bytes_of(path)
    if not known.text then
        return errors.refuse(404, "not_found", "no such route: " .. path)
    end
    for name, value in pairs(GUARD) do
        ngx.header[name] = value
    end
    ngx.header.etag = known.tag
    if ngx.var.http_if_none_match == known.tag then
        return ngx.exit(304)
    end
    return errors.answer(200, known.text, FILES[path][2])
end

-- The best state of the models that a name is shared between.
local function state_of_split(split)
    local best = "down"
    for _, part in ipairs(split) do
        local state = health.state_of(routes.models[part.model])
        if state == "up" then
            return state
        end
        best = state == "starting" and state or best
    end
    return best, 0
end

local function model_of(name, counted)
    local model = routes.models[name]
    if not model then
        local state, seconds = state_of_split(routes.splits[name])
        return { name = name, state = state, seconds = seconds, split = true }
    end
    local state, seconds = health.state_of(model)
    local planned = plan.models[model.name] or {}
    local told = {
        name = name, of = model.name ~= name and model.name or nil, state = state, seconds = seconds,
        task = planned.task, context = planned.context,
    }
    if counted and not told.of then
        told.engine, told.loads = planned.engine, planned.loads
        told.counters = counted[name]
    end
    return told
end

--- What the page shows of the models by these names; counters, engines and devices only to who may see counters.
function M.text(names, may_count)
    local counted = may_count and report.stat().models or nil
    local models = {}
    for n, name in ipairs(names) do
        models[n] = model_of(name, counted)
    end
    return cjson.encode({
        time = ngx.now(), counters = may_count and true or false, models = models,
        devices = may_count and plan.devices or nil,
    })
end

return M
