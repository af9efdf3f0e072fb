--- The gateway, phase by phase: whose request it is, which model it is for, who takes it, and what is noted of it.

package.path = ngx.config.prefix() .. "?.lua;" .. package.path

local balance = require "gateway.balance"
local balancer = require "ngx.balancer"
local base = require "resty.core.base"
local body = require "gateway.body"
local cjson = require "cjson.safe"
local counts = require "gateway.counts"
local errors = require "gateway.errors"
local health = require "gateway.health"
local keys = require "gateway.keys"
local limits = require "gateway.limits"
local metrics = require "gateway.metrics"
local own = require "gateway.own"
local page = require "gateway.page"
local paths = require "gateway.paths"
local queue = require "gateway.queue"
local remote = require "gateway.remote"
local requests = require "gateway.requests"
local routes = require "gateway.routes"
local usage = require "gateway.usage"

local REREAD_EVERY = 0.25 -- seconds
local LOADING = "Loading model" -- what llama.cpp's server says with its 503
local LONGEST_HELD_BACK = 65536 -- bytes of a provider's error
local NGX_BUSY = -3 -- ngx.exit(502) in a balancer becomes a 500
local RETRY_AFTER = errors.RETRY_AFTER

local floor = math.floor
local get_request, refuse = base.get_request, errors.refuse

-- Global, because a `require` in each phase of each request is felt.
gateway = {}
local M = gateway

---------------------------------------------------------------------------------------------------- access

local function refuse_starting(model, seconds)
    local since = seconds and seconds > 1 and ", since " .. seconds .. " s" or ""
    return refuse(
        503, "model_starting", "the model '" .. model.name .. "' is starting" .. since .. "; try again in a moment",
        RETRY_AFTER
    )
end

local function allow(method)
    ngx.header.allow = method == "GET" and "GET, HEAD" or method
end

local function refuse_method(allowed, method)
    allow(allowed)
    return refuse(405, "method_not_allowed", "use " .. allowed .. " here, not " .. errors.shown(method))
end

-- Whether something of a model answers, so that another need not stand in for it.
local function serves(model)
    local state = health.state_of(model)
    return state == "up"
end

-- The one that answers for a model that does not: the operator's choice, if that is any better.
local function stand_in(model)
    local other = model.fallback and routes.models[model.fallback]
    return other and serves(other) and other or nil
end

-- Says which replica gets a request first; false where none serves.
local function take(one, model)
    if model.simple then
        one.first = balance.first(model)
    else
        one.candidates = balance.candidates(model, one.conversation)
        one.first = one.candidates[1]
    end
    return one.first ~= nil
end

-- The replicas for a model, or for the one that stands in for it; ends the request where there are none.
local function choose(one, model, entry)
    if model.fallback and not serves(model) then
        local other = stand_in(model)
        model = other and paths.upstream(other, entry) and other or model
    end
    one.model = model
    if model.balance == "prefix" then
        one.conversation = body.conversation()
    end
    if not take(one, model) then
        -- One may be up since the last round: who started it and asks at once is to get an answer.
        for _, replica in ipairs(model.replicas) do
            health.look(replica)
        end
        if not take(one, model) then
            local _, seconds = health.state_of(model)
            return refuse_starting(model, seconds)
        end
    end
    return model
end

-- nginx's upstream and the path there, joined once for each.
local function joined(upstream)
    return setmetatable({}, {
        __index = function(self, path)
            self[path] = upstream .. path
            return self[path]
        end,
    })
end

local targets = { [false] = joined("engines"), [true] = joined("engines_kept") }

local function forward(one, entry, path_name)
    local key = one.key
    if path_name and not (routes.knows(path_name) and own.may(key, path_name)) then
        return own.refuse_unknown(key, path_name)
    end
    local status, code, message = body.read()
    if status then
        return refuse(status, code, message)
    end
    local form = entry.form and ngx.var.content_type
    form = form and form:lower():find("multipart/form-data", 1, true) and form or nil
    local problem, body_name, first, last = body.model(form)
    if problem then
        return refuse(400, "invalid_body", problem)
    end
    local name = path_name or body_name
    if not name then
        return refuse(400, "model_missing", "`model` is missing; GET /v1/models lists the models")
    end
    local model = routes.find(name)
    if not model or not own.may(key, name) then
        return own.refuse_unknown(key, name)
    end
    if not paths.upstream(model, entry) then
        return refuse(404, "path_not_served", "the model '" .. model.name .. "' does not serve " .. entry.path)
    end
    if key then
        limits.take(one, key)
    end
    model = choose(one, model, entry)
    if body_name and body_name ~= model.upstream_model then
        if not body.rename(model.upstream_model, first, last, form ~= nil) then
            return refuse(500, "internal_error", "the gateway has no room for the request")
        end
    end
    local path = paths.upstream(model, entry)
    if model.limited then
        queue.hold(one, model, one.candidates)
    end
    if form then
        ngx.var.gw_content_type = form
    end
    if model.remote then
        remote.aim(model, path)
        return ngx.exec("@remote")
    end
    if model.nameless then
        ngx.var.gw_told_id = ""
    end
    if not model.keepalive then
        ngx.var.gw_connection = "close"
    end
    ngx.var.gw_target = targets[model.keepalive or false][path]
end

local function allow_origin(method)
    local origin = ngx.var.http_origin
    if not origin then
        return
    end
    local any = false
    for _, allowed in ipairs(routes.cors) do
        any = any or allowed == "*" or allowed == origin
    end
    if not any then
        return
    end
    local header = ngx.header
    header["Access-Control-Allow-Origin"] = origin
    header["Access-Control-Expose-Headers"] = "X-Request-Id, Retry-After"
    header["Vary"] = "Origin"
    if method == "OPTIONS" and ngx.var.http_access_control_request_method then
        header["Access-Control-Allow-Methods"] = "GET, POST, OPTIONS"
        header["Access-Control-Allow-Headers"] = ngx.var.http_access_control_request_headers or "*"
        header["Access-Control-Max-Age"] = 86400
        ngx.status = 204
        return ngx.exit(204)
    end
end

--- access: answers the request, or says what is to be sent to which replicas.
function M.route()
    local one = requests.new()
    local uri, method = ngx.var.uri, ngx.req.get_method()
    one.method = method
    if routes.cors then
        allow_origin(method)
    end
    local entry, name = paths.resolve(uri)
    if not entry or (entry.inside and not keys.from_inside()) then
        one.key = keys.check()
        return refuse(404, "not_found", "no such route: " .. errors.shown(uri))
    end
    one.path, one.entry = uri, entry
    local allowed = entry.method
    if method ~= allowed and not (method == "HEAD" and allowed == "GET") then
        return refuse_method(allowed, method)
    end
    if entry.own then
        return own.answer(one, entry.own, name)
    end
    one.key = keys.check()
    return forward(one, entry, name)
end

---------------------------------------------------------------------------------------------------- balancer

-- Whether anything of the request was sent at the last try.
local function was_sent()
    local sent = ngx.var.upstream_bytes_sent
    -- "0, 0, 123": one number for each try that is over.
    return sent ~= nil and tonumber(sent:match("(%d+)[^%d]*$") or 0) > 0
end

-- Gives up the replica that just failed; whether another one may be asked.
local function give_up(one)
    local failed = one.replica
    local _, code = balancer.get_last_failure()
    one.failure = code
    local sent = was_sent()
    balance.release(one)
    if code == 504 and sent then
        return false
    end
    health.failed(failed)
    if not sent then
        return true
    end
    -- A request that ends its replica must not visit them all.
    local again = one.model.retry == "before_first_byte" and not one.resent
    one.resent = true
    return again
end

-- Holds another replica than those that failed; whether there is one.
local function try_another(one)
    local failed = one.replica
    if not give_up(one) then
        return false
    end
    one.tried = one.tried or {}
    one.tried[failed] = true
    return balance.hold_free(one, balance.others(one))
end

--- balancer: names the replica; called again when one could not be reached.
function M.balance()
    local one = requests.get()
    one.try = one.try + 1
    if one.try == 1 then
        if #one.model.replicas > 1 then
            balancer.set_more_tries(#one.model.replicas - 1)
        end
        if not one.held then
            balance.hold(one, one.first)
        end
    elseif not try_another(one) then
        return ngx.exit(NGX_BUSY)
    end
    local replica = one.replica
    local ok, problem
    if one.model.remote then
        local address, port = remote.peer(one.model, replica, one.try)
        ok, problem = balancer.set_current_peer(address, port)
    else
        ok, problem = balancer.set_current_peer(replica.address)
    end
    if not ok then
        ngx.log(ngx.ERR, replica.address, " is no address: ", problem)
        return ngx.exit(NGX_BUSY)
    end
end

---------------------------------------------------------------------------------------------------- the answer

--- header_filter: some errors are held back until their body says what they are.
function M.header()
    local status = ngx.status
    if status < 400 and status ~= 0 then
        local one = requests.get()
        if one and one.model and one.model.remote and one.try > 0 then
            remote.header()
        end
        return
    end
    local one = requests.get()
    if not one or one.try == 0 then
        return
    end
    local of_provider = one.model.remote ~= nil
    if of_provider then
        remote.header()
    end
    if status == 503 or of_provider then
        ngx.header.content_length = nil
        if status == 503 then
            ngx.header.retry_after = ngx.header.retry_after or RETRY_AFTER
        end
        if of_provider then
            ngx.header.content_type = "application/json"
        end
        one.held_back = ""
    end
end

local function pass_held_back(one)
    local text = one.held_back
    if #text < LONGEST_HELD_BACK then
        text = text .. ngx.arg[1]
    end
    one.held_back, ngx.arg[1] = text, nil
    if not ngx.arg[2] then
        return
    end
    if one.model.remote then
        text = remote.error(text, ngx.status)
    elseif text:find(LOADING, 1, true) then
        text = errors.text(503, "model_starting", "the model '" .. one.model.name .. "' is starting; try again in a moment")
    end
    ngx.arg[1] = text
end

-- An empty piece comes first of all, and when the engine broke off; the time that it took is known only then.
local function broke_off()
    local taken = ngx.var.upstream_response_time
    local kind = ngx.header.content_type
    return taken and taken:find("%d$") and kind, kind
end

local function end_broken(one)
    local over, kind = broke_off()
    if not over or one.ended or ngx.header.content_length then
        return
    end
    local message = "the model '" .. one.model.name .. "' broke off in the middle of its answer"
    if kind:find("text/event-stream", 1, true) then
        ngx.arg[1] = errors.event(502, "stream_broken", message)
    elseif kind:find("ndjson", 1, true) then
        ngx.arg[1] = "\n" .. cjson.encode({ error = message }) .. "\n"
    else
        return
    end
    one.ended, one.broken = true, true
    ngx.arg[2] = true
end

--- body_filter: notes when the first bytes come, and keeps the last ones.
function M.body()
    local request = get_request()
    local size = usage.note(request)
    if size and size > 0 then
        return
    end
    local one = requests.get()
    if not one or one.try == 0 then
        return
    end
    if size then
        if not ngx.arg[2] then
            end_broken(one)
        end
    elseif one.held_back then
        pass_held_back(one)
    elseif usage.begin(request) > 0 then
        one.first_byte = ngx.now() - ngx.req.start_time()
    end
end

---------------------------------------------------------------------------------------------------- the end

-- Method and path of a request that was not even let in.
local function of_request_line()
    local line = ngx.var.request or ""
    return line:match("^([A-Z]+) ") or "", line:match("^[A-Z]+ ([^ ?]*)") or ""
end

local function quoted(text)
    return text:find('^[%w/._:-]*$') and '"' .. text .. '"' or cjson.encode((text:gsub("[^%g ]", "?")))
end

-- Milliseconds as seconds: a fraction is dear to write, and most are the same few.
local in_seconds = setmetatable({}, {
    __index = function(self, milliseconds)
        local text = tostring(milliseconds / 1000)
        if milliseconds < 1000 then
            self[milliseconds] = text
        end
        return text
    end,
})

-- The end of the log's line. What differs from request to request stands last: long strings are told apart by their ends,
-- and those that only differ in the middle are all compared with each other.
local function note(one, tokens_in, tokens_out)
    local method, path = one and one.method, one and one.path
    if not path then
        method, path = of_request_line()
    end
    local model, replica, key = one and one.model, one and one.replica, one and one.key
    local known = one and one.entry and one.entry.method == method
    ngx.var.gw_log = ',"method":"' .. ((known or method:find("^%u+$")) and method or "")
        .. '","path":' .. (known and one.entry.path == path and one.entry.quoted or quoted(path:sub(1, 1000)))
        .. ',"key":"' .. (key and key.name or "")
        .. '","model":"' .. (model and model.name or "")
        .. '","replica":"' .. (replica and replica.name or "")
        .. '","retries":' .. (one and one.try > 1 and one.try - 1 or "0")
        .. ',"tokens_in":' .. (tokens_in or "null")
        .. ',"tokens_out":' .. (tokens_out or "null")
        .. ',"ttft":' .. (one and one.first_byte and in_seconds[floor(one.first_byte * 1000 + 0.5)] or "null")
end

--- log: the replica has one request less.
function M.done()
    local one = requests.drop()
    if not one then
        if ngx.status >= 400 then
            metrics.refuse(nil, ngx.status)
        end
        return note(nil)
    end
    balance.release(one)
    queue.done(one)
    local digits_in, digits_out = usage.tokens(one)
    local pieces = usage.done(one, get_request())
    note(one, digits_in, digits_out)
    local tokens_in, tokens_out = tonumber(digits_in or 0), tonumber(digits_out)
    -- An engine that tells no numbers gives about one token in each piece of a stream.
    limits.done(one, tokens_in + (tokens_out or pieces))
    if one.model then
        metrics.count(one, ngx.status, ngx.now() - ngx.req.start_time(), tokens_in, tokens_out or 0)
    elseif ngx.status >= 400 then
        metrics.refuse(one, ngx.status)
    end
end

---------------------------------------------------------------------------------------------------- failures

-- What nginx itself has to say, by its status.
local FAILURES = {
    [400] = { "bad_request", "the request is malformed" },
    [405] = { "method_not_allowed", "this method is not allowed" },
    [408] = { "request_timeout", "the request took too long to arrive" },
    [413] = { "request_too_large", "the body is larger than 64 MiB" },
    [414] = { "uri_too_long", "the path is too long" },
    [431] = { "headers_too_large", "the headers are too large" },
    [497] = { "tls_expected", "this port speaks https" },
    [500] = { "internal_error", "the gateway failed; its log says why" },
    [501] = { "not_implemented", "this transfer encoding is not supported" },
    [505] = { "version_not_supported", "this HTTP version is not supported" },
}

local function refuse_failed(one, status)
    local model, replica = one.model, one.replica
    if replica and not one.failure then
        health.failed(replica)
    end
    if status == 504 or one.failure == 504 then
        return refuse(504, "model_timeout", "the model '" .. model.name .. "' did not answer in time")
    elseif not model.remote
        and (health.state_of(model) == "starting" or (replica and not health.socket_exists(replica.address))) then
        -- A socket that is gone was taken away in good order: stopped, or on its way back.
        return refuse_starting(model)
    end
    local why = model.remote and "the provider of '" .. model.name .. "' cannot be reached"
        or "the model '" .. model.name .. "' does not answer, although it did before"
    return refuse(502, "model_unavailable", why, RETRY_AFTER)
end

--- Every error that nginx makes, as JSON.
function M.failure(known_status)
    local status, one = known_status or ngx.status, requests.get()
    if one and one.first and (status == 502 or status == 504) then
        return refuse_failed(one, status)
    end
    if status == 405 then
        -- nginx refuses TRACE itself.
        local entry = paths.resolve(ngx.var.request_uri:match("^[^?]*"))
        allow(entry and entry.method or "POST")
    end
    local known = FAILURES[status] or { "error", "the request cannot be served" }
    return refuse(status == 497 and 400 or status, known[1], known[2])
end

---------------------------------------------------------------------------------------------------- start

local function reread(premature)
    if premature then
        return
    end
    if routes.reread() then
        health.look_at_new()
    end
    keys.reread()
    page.reread()
end

--- init_worker: knows the routes before the first request comes.
function M.start()
    -- What a request leaves behind is small; looking for it at twice the size, as is usual, would cost a fifth of it all.
    collectgarbage("setpause", 400)
    math.randomseed(ngx.now() * 1000 + ngx.worker.pid())
    counts.start()
    health.start()
    metrics.start()
    remote.start()
    reread()
    ngx.timer.every(REREAD_EVERY, reread)
end

return M
