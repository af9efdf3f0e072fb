--- Whose request it is: keys are known by their digests only, and a key file that is broken lets nobody in.

local cjson = require "cjson.safe"
local errors = require "gateway.errors"
local ffi = require "ffi"
local file = require "gateway.file"
local routes = require "gateway.routes"

ffi.cdef [[
struct gw_sha256 { uint32_t words[32]; };
int SHA256_Init(struct gw_sha256 *state);
int SHA256_Update(struct gw_sha256 *state, const void *text, size_t size);
int SHA256_Final(unsigned char *digest, struct gw_sha256 *state);
int CRYPTO_memcmp(const void *one, const void *other, size_t size);
]]

local C = ffi.C
local find, sub = string.find, string.sub
local SIZE, PREFIX = 32, 8 -- bytes of a digest, and of it, those that it is looked up by
local LONGEST = 512 -- bytes of a key

-- In three steps: SHA256() looks the algorithm up by its name each time, which costs more than the digest.
local digest, state = ffi.new("unsigned char[?]", SIZE), ffi.new("struct gw_sha256")

-- state: "none" (there is no key file, or no key in it), "some" or "broken"; entries by the digest's first bytes.
local M = { state = "broken" }
local entries = {}

local function from_hex(text)
    return (text:gsub("%x%x", function(pair)
        return string.char(tonumber(pair, 16))
    end))
end

local function is_number(value)
    return value == nil or type(value) == "number"
end

local function entry_of(item)
    if type(item) ~= "table" or type(item.name) ~= "string" or type(item.sha256) ~= "string" then
        return nil
    elseif not item.sha256:match("^%x+$") or #item.sha256 ~= 2 * SIZE then
        return nil
    elseif not (is_number(item.rpm) and is_number(item.tpm) and is_number(item.parallel) and is_number(item.expires)) then
        return nil
    end
    local models
    if item.models ~= nil then
        if type(item.models) ~= "table" then
            return nil
        end
        models = {}
        for _, name in ipairs(item.models) do
            models[name] = true
        end
    end
    return {
        name = item.name, place = "key:" .. item.name, digest = from_hex(item.sha256), models = models, metrics = item.metrics == true,
        rpm = item.rpm, tpm = item.tpm, parallel = item.parallel, expires = item.expires,
        rpm_text = tostring(item.rpm), tpm_text = tostring(item.tpm),
    }
end

local function parse(text)
    local document, problem = cjson.decode(text)
    if type(document) ~= "table" or document.version ~= 1 or type(document.keys) ~= "table" then
        return nil, problem or "not a document of version 1"
    end
    local found, number = {}, 0
    for place, item in pairs(document.keys) do
        local entry = entry_of(item)
        if not entry then
            return nil, "key " .. tostring(place) .. " makes no sense"
        end
        local prefix = entry.digest:sub(1, PREFIX)
        found[prefix] = found[prefix] or {}
        table.insert(found[prefix], entry)
        number = number + 1
    end
    return found, number
end

local changed, path

--- Rereads the key file when it changed.
function M.reread()
    if path ~= routes.keys then
        path = routes.keys
        changed = path and file.watch(path)
        M.state, entries = path and "broken" or "none", {}
    end
    if not path then
        M.state = "none"
        return
    end
    local text, problem = changed()
    if text == false then
        return
    end
    if not text and not file.exists(path) then
        M.state, entries = "none", {}
        return
    end
    local found
    if text then
        found, problem = parse(text)
    end
    if not found then
        ngx.log(ngx.ERR, path, " cannot be read, so nobody is let in: ", problem)
        M.state, entries = "broken", {}
        return
    end
    M.state, entries = problem > 0 and "some" or "none", found
end

local function look_up(secret)
    if #secret > LONGEST then
        return nil
    end
    C.SHA256_Init(state)
    C.SHA256_Update(state, secret, #secret)
    C.SHA256_Final(digest, state)
    local candidates = entries[ffi.string(digest, PREFIX)]
    if not candidates then
        return nil
    end
    for n = 1, #candidates do
        local entry = candidates[n]
        if C.CRYPTO_memcmp(digest, entry.digest, SIZE) == 0 and (not entry.expires or entry.expires > ngx.time()) then
            return entry
        end
    end
end

-- What the client shows: OpenAI's way, Anthropic's, Azure's.
local function shown()
    local var = ngx.var
    local authorization = var.http_authorization
    if authorization then
        -- As nearly everybody writes it; patterns are slow.
        if sub(authorization, 1, 7) == "Bearer " and not find(authorization, " ", 8, true) then
            return sub(authorization, 8)
        end
        return authorization:match("^[Bb][Ee][Aa][Rr][Ee][Rr] +([^ ]+)$") or ""
    end
    return var.http_x_api_key or var.http_api_key
end

-- The private socket, which only root and the gateway's own user can reach: the appliance itself asks.
local function from_inside()
    return ngx.var.remote_addr == "unix:"
end

M.from_inside = from_inside

--- The key that came with the request, where it is valid.
function M.known()
    local secret = M.state == "some" and shown()
    return secret and look_up(secret) or nil
end

-- Whether the client calls us by a name that is ours. A web page can have a name of its own lead here, and the browser lets it
-- ask and read; it cannot do that with an address, or with what is only known on this machine.
local function is_ours(host)
    return host == "127.0.0.1" or host == "localhost" or host == "" or routes.hosts[host] or host == ngx.var.hostname
        or find(host, "^%[") or find(host, "^%d+%.%d+%.%d+%.%d+$") or find(host, "%.localhost$")
end

-- Whether nobody needs a key.
local function needs_none()
    return M.state == "none" and routes.open
end

--- Whether the request may come in, with a key or because none is needed.
function M.open(key)
    return key ~= nil or from_inside() or (needs_none() and (not routes.hosts or is_ours(ngx.var.host)))
end

--- The client's key, nil where none is needed; ends the request of a client that may not come in.
function M.check()
    local key = M.known()
    if M.open(key) then
        return key
    elseif M.state == "broken" then
        return errors.refuse(503, "keys_unavailable", "the gateway cannot read its keys", errors.RETRY_AFTER)
    end
    if needs_none() then
        return errors.refuse(
            421, "host_unknown", "'" .. errors.shown(ngx.var.host) .. "' is no name of this gateway's; if it should be: "
                .. "llm-appliance config set gateway.hosts NAME, then llm-appliance install; or make a key"
        )
    end
    ngx.header.www_authenticate = "Bearer"
    if not shown() then
        return errors.refuse(401, "key_missing", "a key is needed: Authorization: Bearer KEY")
    end
    return errors.refuse(401, "invalid_api_key", "this key is not valid")
end

--- Whether a key, or nobody's, may know of a model.
function M.may(key, name)
    return not key or not key.models or key.models[name] == true
end

--- Whether counters may be told: to whom the key allows it, to this machine where there is no key.
function M.may_count(key)
    if key then
        return key.metrics
    end
    local var = ngx.var
    local from = var.remote_addr
    -- Behind another proxy on this machine everybody comes from here.
    return from == "unix:" or ((from:match("^127%.") or from == "::1") and not var.http_x_forwarded_for)
end

return M
