--- Models that a provider serves: its key in the place of the client's, its host and paths in the place of ours.

local cjson = require "cjson.safe"
local errors = require "gateway.errors"
local file = require "gateway.file"
local resolver = require "gateway.resolver"
local routes = require "gateway.routes"

local ROUND = 1 -- seconds
-- What a provider may tell the client; cookies and the like stay outside.
local PASSED = {
    ["content-type"] = true, ["content-length"] = true, ["transfer-encoding"] = true, ["retry-after"] = true,
    ["date"] = true, ["connection"] = true, ["cache-control"] = true, ["x-request-id"] = true,
}

-- Headers of the client's that nginx itself goes by; it passes none of them on as it came.
local KEPT = { ["content-length"] = true, ["transfer-encoding"] = true, ["accept"] = true, ["x-request-id"] = true }

-- By path of the key file: a function that tells of changes, and the key.
local files, secrets = {}, {}

-- The `upstream` blocks of the configuration that this worker runs with: routes are reread before a reload is over.
local blocks = {}
do
    local conf = assert(io.open(ngx.config.prefix() .. "nginx.conf", "rb"))
    for name in conf:read("*a"):gmatch('\n%s*upstream%s+"?([%w.-]+)') do
        blocks[name] = true
    end
    conf:close()
end

local M = {}

local function reread(path)
    files[path] = files[path] or file.watch(path)
    local text, problem = files[path]()
    if text == false then
        return
    end
    local secret = text and text:match("^%s*([%g]+)%s*$")
    if not secret then
        ngx.log(ngx.ERR, path, " holds no key of a provider: ", problem or "one line is wanted")
    end
    secrets[path] = secret
end

local function round(premature)
    if premature then
        return
    end
    local hosts = {}
    for _, name in ipairs(routes.names) do
        local remote = routes.models[name] and routes.models[name].remote
        if remote then
            hosts[remote.host] = true
        end
    end
    for host in pairs(hosts) do
        ngx.thread.spawn(resolver.refresh, host)
    end
end

--- Says where a request goes and with which key; ends it where that is not known.
function M.aim(model, path)
    local remote, var = model.remote, ngx.var
    if not blocks[remote.upstream] then
        return errors.refuse(
            503, "model_starting", "the gateway is about to know the provider of '" .. model.name .. "'", errors.RETRY_AFTER
        )
    end
    local key_file = remote.key_file ~= "" and remote.key_file or nil
    if key_file then
        reread(key_file)
        if not secrets[key_file] then
            local message = "the key for the provider of '" .. model.name .. "' is not there"
            return errors.refuse(502, "provider_key_missing", message)
        end
    end
    local through_socket = model.replicas[1].address:find("^unix:")
    if not through_socket and not resolver.address(remote.host, 1) and not resolver.await(remote.host) then
        return errors.refuse(
            502, "provider_unknown", "no address is known of " .. remote.host, errors.RETRY_AFTER
        )
    end
    var.gw_host = remote.authority
    var.gw_name = remote.host
    var.gw_target = remote.scheme .. "://" .. remote.upstream .. remote.path .. path:gsub("^/v1", "", 1) .. (remote.query ~= "" and "?" .. remote.query or "")
    for name in pairs(ngx.req.get_headers(0)) do
        if not KEPT[name] then
            ngx.req.clear_header(name)
        end
    end
    if key_file then
        local secret = secrets[key_file]
        local bare = remote.header ~= "authorization"
        ngx.req.set_header(remote.header, bare and secret or "Bearer " .. secret)
    end
end

--- Where a place of the provider's is reached: address and port, or a socket.
function M.peer(model, replica, try)
    if replica.address:find("^unix:") then
        return replica.address
    end
    return resolver.address(model.remote.host, try), model.remote.port
end

--- header_filter: drops what is none of the client's business; returns whether the body is no error as OpenAI's are.
function M.header()
    for name in pairs(ngx.resp.get_headers(0)) do
        if not PASSED[name:lower()] and not name:lower():find("^x%-ratelimit%-") then
            ngx.header[name] = nil
        end
    end
    return ngx.status >= 400
end

--- A provider's error in OpenAI's form: as it is where it has that already.
function M.error(text, status)
    local document = cjson.decode(text)
    if type(document) == "table" and type(document.error) == "table" then
        return text
    end
    local message
    if type(document) == "table" then
        message = document.message or document.detail or document.error
    end
    message = type(message) == "string" and message or (text:gsub("<[^>]*>", " "):gsub("%s+", " "))
    return errors.text(status, "provider_error", "the provider answers " .. status .. ": " .. errors.shown(message))
end

function M.start()
    ngx.timer.at(0, round)
    ngx.timer.every(ROUND, round)
end

return M
