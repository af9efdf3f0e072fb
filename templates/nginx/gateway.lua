--- The gateway's decisions: which model a request is for, which replica takes it, and what is said when none can.

local balancer = require "ngx.balancer"
local cjson = require "cjson.safe"
local ffi = require "ffi"

local HERE = ngx.config.prefix()
local scan = dofile(HERE .. "scan.lua")

ffi.cdef "int kill(int pid, int sig);"

local ROUTES_FILE = HERE .. "gateway.json"
local REREAD_EVERY, PROBE_EVERY = 0.25, 1 -- seconds
local PROBE_TIMEOUT = 1000 -- milliseconds
local PROBE = "GET %s HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n"
local RETRY_AFTER = 5 -- seconds
local LONGEST_NAME = 100 -- bytes of a wrong name that we repeat or compare
local LOADING = "Loading model" -- what llama.cpp's server says with its 503
local MISSING = "no such file or directory" -- as nginx words it
local ENOENT = 2
local NGX_BUSY = -3 -- ngx.exit(502) in a balancer becomes a 500

local M = {}
package.loaded.gateway = M

-- Shared by the nginx workers, and kept through a reload:
--   state:ADDRESS    "starting", "up" or "down"; absent = not asked yet
--   flight:ADDRESS   requests that the replica works on
--   held:PID:ADDRESS how many of them belong to one nginx worker
--   used:ADDRESS     place in the order of use
--   created:MODEL    when the gateway first knew it, in seconds since 1970
local shared = ngx.shared.gateway

local pid

---------------------------------------------------------------------------------------------------- routes

-- models by name; names sorted; the path to ask for health by replica's address.
local routes = { models = {}, names = {}, addresses = {} }
local routes_text = false

local function is_model(model)
    if type(model) ~= "table" or type(model.upstream_model) ~= "string" or type(model.replicas) ~= "table" then
        return false
    end
    for _, replica in ipairs(model.replicas) do
        if type(replica) ~= "table" or type(replica.name) ~= "string" or type(replica.address) ~= "string" then
            return false
        end
    end
    return #model.replicas > 0 and type(model.health or "") == "string"
end

local function parse_routes(text)
    local document, problem = cjson.decode(text)
    if type(document) ~= "table" or document.version ~= 1 or type(document.models) ~= "table" then
        return nil, problem or "not a document of version 1"
    end
    local found = { models = document.models, names = {}, addresses = {} }
    for name, model in pairs(document.models) do
        if not is_model(model) then
            return nil, "model " .. name .. " lacks upstream_model or replicas"
        end
        found.names[#found.names + 1] = name
        for _, replica in ipairs(model.replicas) do
            found.addresses[replica.address] = model.health or "/health"
        end
    end
    table.sort(found.names)
    return found
end

local function read_file(path)
    local file, problem = io.open(path, "rb")
    if not file then
        return nil, problem
    end
    local text = file:read("*a")
    file:close()
    return text
end

---------------------------------------------------------------------------------------------------- health

-- A connect to a socket that is not there yet is a line in nginx's log, each time; a look is none.
local function socket_exists(address)
    local file, _, code = io.open(address:match("^unix:(.*)$") or "/")
    if file then
        file:close()
    end
    return code ~= ENOENT
end

-- Ask a replica how it is: the status code, or why there is none.
local function ask(address, path)
    if not socket_exists(address) then
        return MISSING
    end
    local socket = ngx.socket.tcp()
    socket:settimeouts(PROBE_TIMEOUT, PROBE_TIMEOUT, PROBE_TIMEOUT)
    local host, port = address:match("^(.*):(%d+)$")
    local ok, problem
    if port then
        ok, problem = socket:connect(host, tonumber(port))
    else
        ok, problem = socket:connect(address)
    end
    if not ok then
        return problem
    end
    local line
    ok, problem = socket:send(PROBE:format(path))
    if ok then
        line, problem = socket:receive("*l")
    end
    if line then
        -- Unread bytes at the close would look to the engine like a client that broke off.
        socket:receiveany(8192)
    end
    socket:close()
    return line and line:match("^HTTP/1%.%d (%d%d%d)") or problem
end

-- What an answer makes of a replica that was in the state `before`.
local function next_state(before, answer)
    if answer == "200" then
        return "up"
    elseif answer == "503" or answer == MISSING then
        return "starting"
    elseif answer == "timeout" then
        -- An engine under load may be too busy to say how it is.
        return before == "up" and "up" or "starting"
    end
    return (before == "up" or before == "down") and "down" or "starting"
end

local function look(address)
    local key = "state:" .. address
    local answer = ask(address, routes.addresses[address] or "/health")
    shared:set(key, next_state(shared:get(key), answer))
end

local function probe(address)
    if not shared:add("probing:" .. address, true, 5) then
        return
    end
    look(address)
    shared:delete("probing:" .. address)
end

-- Have a replica that is new or just failed looked at, now instead of at the next round.
local function suspect(address)
    ngx.timer.at(0, function(premature)
        if not premature then
            probe(address)
        end
    end)
end

-- Give back what a killed nginx worker held, and forget replicas that are gone.
local function sweep()
    for _, key in ipairs(shared:get_keys(0)) do
        local owner, address = key:match("^held:(%d+):(.*)$")
        if owner and ffi.C.kill(tonumber(owner), 0) ~= 0 then
            shared:incr("flight:" .. address, -(shared:get(key) or 0), 0)
            shared:delete(key)
        end
        address = key:match("^state:(.*)$")
        if address and not routes.addresses[address] then
            shared:delete(key)
        end
    end
end

local function probe_all()
    -- Each nginx worker comes by; the first one in each round does the work.
    if not shared:add("prober", true, PROBE_EVERY * 0.9) then
        return
    end
    sweep()
    for address in pairs(routes.addresses) do
        ngx.thread.spawn(probe, address)
    end
end

local function state_of(model)
    local best = "down"
    for _, replica in ipairs(model.replicas) do
        local state = shared:get("state:" .. replica.address) or "starting"
        if state == "up" then
            return state
        elseif state == "starting" then
            best = state
        end
    end
    return best
end

local function reread_routes()
    local text, problem = read_file(ROUTES_FILE)
    if text == routes_text then
        return
    end
    routes_text = text
    local found
    if text then
        found, problem = parse_routes(text)
    end
    if not found then
        ngx.log(ngx.ERR, ROUTES_FILE, " is not taken, the routes stay as they are: ", problem)
        return
    end
    routes = found
    for _, name in ipairs(found.names) do
        shared:add("created:" .. name, ngx.time())
    end
    for address in pairs(found.addresses) do
        if not shared:get("state:" .. address) then
            suspect(address)
        end
    end
end

---------------------------------------------------------------------------------------------------- balance

local function better(one, other)
    if one.down ~= other.down then
        return other.down
    elseif one.flight ~= other.flight then
        return one.flight < other.flight
    end
    return one.used < other.used
end

-- The replicas worth trying, best first: living before dead, then fewest in flight, then least recently used.
local function candidates(model)
    local found = {}
    for _, replica in ipairs(model.replicas) do
        local address = replica.address
        local state = shared:get("state:" .. address)
        if state ~= "starting" then
            found[#found + 1] = {
                name = replica.name,
                address = address,
                down = state == "down",
                flight = shared:get("flight:" .. address) or 0,
                used = shared:get("used:" .. address) or 0,
            }
        end
    end
    table.sort(found, better)
    return found
end

local function count(address, step)
    shared:incr("flight:" .. address, step, 0)
    shared:incr("held:" .. pid .. ":" .. address, step, 0)
end

local function hold(replica)
    count(replica.address, 1)
    shared:set("used:" .. replica.address, shared:incr("sequence", 1, 0))
    -- In variables, because an error page clears ngx.ctx before the request is over.
    ngx.var.gw_address = replica.address
    ngx.var.gw_replica = replica.name
end

local function release()
    local address = ngx.var.gw_address
    if address and address ~= "" then
        count(address, -1)
        ngx.var.gw_address = ""
    end
end

---------------------------------------------------------------------------------------------------- answers

local function answer(status, text)
    ngx.status = status
    ngx.header.content_type = "application/json"
    ngx.header.content_length = #text
    ngx.print(text)
    return ngx.exit(ngx.HTTP_OK)
end

local function error_text(status, code, message)
    local kind = status < 500 and "invalid_request_error" or "server_error"
    return cjson.encode({ error = { message = message, type = kind, param = cjson.null, code = code } })
end

local function refuse(status, code, message)
    return answer(status, error_text(status, code, message))
end

local function starting_text(name)
    return error_text(503, "model_starting", "the model '" .. name .. "' is starting; try again in a moment")
end

local function refuse_starting(name)
    ngx.header.retry_after = RETRY_AFTER
    return answer(503, starting_text(name))
end

-- Number of letters to insert, delete or exchange to make one name of the other (Levenshtein).
local function distance(one, other)
    local row = {}
    for column = 0, #other do
        row[column] = column
    end
    for line = 1, #one do
        local diagonal
        diagonal, row[0] = row[0], line
        for column = 1, #other do
            local exchange = diagonal + (one:byte(line) == other:byte(column) and 0 or 1)
            diagonal = row[column]
            row[column] = math.min(exchange, row[column] + 1, row[column - 1] + 1)
        end
    end
    return row[#other]
end

-- The known name most like a wrong one, if any is.
local function nearest(wrong)
    local best, least
    for _, name in ipairs(routes.names) do
        local changes = distance(wrong:lower(), name:lower())
        if changes <= math.max(2, #name / 3) and (not least or changes < least) then
            best, least = name, changes
        end
    end
    return best
end

local function refuse_unknown(name)
    local shown = name:sub(1, LONGEST_NAME)
    local near = nearest(shown)
    -- A name in no known encoding would make our answer invalid JSON.
    local message = "the model '" .. shown:gsub("[^%w%p ]", "?") .. "' does not exist"
    return refuse(404, "model_not_found", message .. (near and "; did you mean '" .. near .. "'?" or ""))
end

local function card(name)
    local created = shared:get("created:" .. name) or ngx.time()
    return cjson.encode({ id = name, object = "model", created = created, owned_by = "llm-appliance" })
end

---------------------------------------------------------------------------------------------------- endpoints

-- Each takes the model's name from the path, if it has one there, and the engine's path.

local function health()
    local models = {}
    for name, model in pairs(routes.models) do
        models[name] = state_of(model)
        if models[name] ~= "up" then
            -- Whoever waits for a model that starts learns it at once, not at the next round.
            for _, replica in ipairs(model.replicas) do
                suspect(replica.address)
            end
        end
    end
    return answer(200, cjson.encode({ status = "ok", models = models }))
end

local function list_models(only)
    if only and not routes.models[only] then
        return refuse_unknown(only)
    end
    local cards = {}
    for _, name in ipairs(only and { only } or routes.names) do
        cards[#cards + 1] = card(name)
    end
    return answer(200, '{"object":"list","data":[' .. table.concat(cards, ",") .. "]}")
end

local function show_model(name)
    if not routes.models[name] then
        return refuse_unknown(name)
    end
    return answer(200, card(name))
end

local function read_body()
    ngx.req.read_body()
    local text = ngx.req.get_body_data()
    if text then
        return text
    end
    local path = ngx.req.get_body_file()
    return path and read_file(path) or ""
end

local function forward(path_name, path)
    if path_name and not routes.models[path_name] then
        return refuse_unknown(path_name)
    end
    local body = read_body()
    local problem, body_name, first, last = scan.model(body)
    if problem then
        return refuse(400, "invalid_body", problem)
    end
    local name = path_name or body_name
    if not name then
        return refuse(400, "model_missing", "`model` is missing; GET /v1/models lists the models")
    end
    local model = routes.models[name]
    if not model then
        return refuse_unknown(name)
    end
    local found = candidates(model)
    ngx.var.gw_model = name
    if #found == 0 then
        -- One may be up since the last round: who started it and asks at once is to get an answer.
        for _, replica in ipairs(model.replicas) do
            look(replica.address)
        end
        found = candidates(model)
    end
    if #found == 0 then
        return refuse_starting(name)
    end
    if body_name and body_name ~= model.upstream_model then
        -- Spliced, so that all else arrives byte for byte as it was sent.
        ngx.req.set_body_data(body:sub(1, first - 1) .. cjson.encode(model.upstream_model) .. body:sub(last + 1))
    end
    ngx.var.gw_path = path
    ngx.ctx.candidates = found
end

-- All that is let in; nothing else is answered, and no other path reaches an engine.
local ENDPOINTS = {
    ["/health"] = { method = "GET", handler = health },
    ["/v1/models"] = { method = "GET", handler = list_models },
    ["/v1/models/*"] = { method = "GET", handler = show_model },
    ["/v1/chat/completions"] = { method = "POST", handler = forward },
    ["/v1/completions"] = { method = "POST", handler = forward },
    ["/v1/embeddings"] = { method = "POST", handler = forward },
    ["/v1/rerank"] = { method = "POST", handler = forward },
}

-- The endpoint of a path, the model that the path names, and the path that the engine knows it by.
local function resolve(uri)
    local prefix, path = uri:match("^/([^/]+)(/v1/.+)$")
    path = path or uri
    local item = path:match("^/v1/models/([^/]+)$")
    if not item then
        return ENDPOINTS[path], prefix, path
    elseif not prefix or prefix == item then
        return ENDPOINTS["/v1/models/*"], item
    end
end

---------------------------------------------------------------------------------------------------- phases

--- init_worker: knows the routes before the first request comes.
function M.start()
    pid = ngx.worker.pid()
    reread_routes()
    ngx.timer.every(REREAD_EVERY, reread_routes)
    ngx.timer.every(PROBE_EVERY, probe_all)
end

--- access: answers the request, or says what is to be sent to which replicas.
function M.route()
    local uri, method = ngx.var.uri, ngx.req.get_method()
    local endpoint, name, path = resolve(uri)
    if not endpoint then
        return refuse(404, "not_found", "no such route: " .. uri:sub(1, LONGEST_NAME):gsub("[^%w%p ]", "?"))
    end
    local allowed = endpoint.method
    if method ~= allowed and not (method == "HEAD" and allowed == "GET") then
        ngx.header.allow = allowed == "GET" and "GET, HEAD" or allowed
        return refuse(405, "method_not_allowed", "use " .. allowed .. " here, not " .. method)
    end
    return endpoint.handler(name, path)
end

--- balancer: names the replica; called again when one could not be reached.
function M.balance()
    local ctx = ngx.ctx
    ctx.try = (ctx.try or 0) + 1
    if ctx.try == 1 and #ctx.candidates > 1 then
        balancer.set_more_tries(#ctx.candidates - 1)
    elseif ctx.try > 1 then
        suspect(ngx.var.gw_address)
        release()
    end
    local replica = ctx.candidates[ctx.try]
    hold(replica)
    local ok, problem = balancer.set_current_peer(replica.address)
    if not ok then
        ngx.log(ngx.ERR, replica.address, " is no address: ", problem)
        return ngx.exit(NGX_BUSY)
    end
end

--- header_filter: an engine's 503 is held back until its body says whether the model is still being loaded.
function M.header()
    if ngx.status == 503 and ngx.ctx.try then
        ngx.header.content_length = nil
        ngx.header.retry_after = ngx.header.retry_after or RETRY_AFTER
        ngx.ctx.held_back = ""
    end
end

--- body_filter: notes when the first bytes come; all later chunks only pass.
function M.body()
    local ctx = ngx.ctx
    if not ctx.begun then
        ctx.begun = true
        if ctx.try then
            ngx.var.gw_first_byte = string.format("%.3f", ngx.now() - ngx.req.start_time())
        end
    end
    if not ctx.held_back then
        return
    end
    local text = ctx.held_back .. ngx.arg[1]
    ctx.held_back, ngx.arg[1] = text, nil
    if ngx.arg[2] then
        ngx.arg[1] = text:find(LOADING, 1, true) and starting_text(ngx.var.gw_model) or text
    end
end

--- log: the replica has one request less.
function M.done()
    release()
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
    [500] = { "internal_error", "the gateway failed; its log says why" },
    [501] = { "not_implemented", "this transfer encoding is not supported" },
    [505] = { "version_not_supported", "this HTTP version is not supported" },
}

local function refuse_failed(name, status)
    local model, address = routes.models[name], ngx.var.gw_address
    if address ~= "" then
        suspect(address)
    end
    if status == 504 then
        return refuse(504, "model_timeout", "the model '" .. name .. "' did not answer in time")
    elseif model and (state_of(model) == "starting" or not socket_exists(address)) then
        -- A socket that is gone was taken away in good order: stopped, or on its way back.
        return refuse_starting(name)
    end
    ngx.header.retry_after = RETRY_AFTER
    return refuse(502, "model_unavailable", "the model '" .. name .. "' does not answer, although it did before")
end

--- Every error that nginx makes, as JSON.
function M.failure()
    local status, name = ngx.status, ngx.var.gw_model
    if name and name ~= "" and (status == 502 or status == 504) then
        return refuse_failed(name, status)
    end
    local known = FAILURES[status] or { "error", "the request cannot be served" }
    return refuse(status, known[1], known[2])
end
