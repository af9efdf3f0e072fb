--- Addresses of providers' hosts, asked for again and again; while nobody answers, the old ones hold.

local ffi = require "ffi"

-- The C library's own resolver, in a thread of its own: it knows /etc/hosts, search domains and what else the machine
-- is set up with, and nginx waits for nothing.
ffi.cdef [[
struct gw_addrinfo {
    int flags, family, kind, protocol; unsigned size; const uint8_t *address; char *canonical; struct gw_addrinfo *next;
};
struct gw_lookup {
    const char *name, *service; const struct gw_addrinfo *request; struct gw_addrinfo *result; int code, unused[5];
};
int getaddrinfo_a(int mode, struct gw_lookup **list, int size, void *event);
int gai_error(struct gw_lookup *lookup);
void freeaddrinfo(struct gw_addrinfo *result);
const char *inet_ntop(int family, const void *address, char *text, unsigned size);
]]

local C = ffi.C
local NO_WAIT, IN_PROGRESS, AS_CONFIGURED, STREAM, INET, INET6 = 1, -100, 0x20, 1, 2, 10
local AGAIN, AGAIN_AFTER_FAILURE, LONGEST, PAUSE = 30, 5, 20, 0.02 -- seconds

-- dns:HOST      its addresses, with a space between two of them
-- due:HOST      there as long as they are new enough
local shared = ngx.shared.gateway

local M = {}

local function texts(result)
    local found, text = {}, ffi.new("char[64]")
    local at = result
    while at ~= nil do
        if at.family == INET or at.family == INET6 then
            local raw = at.address + (at.family == INET and 4 or 8)
            local word = ffi.string(C.inet_ntop(at.family, raw, text, 64))
            found[#found + 1] = at.family == INET and word or "[" .. word .. "]"
        end
        at = at.next
    end
    return found
end

local function look_up(host)
    local request = ffi.new("struct gw_addrinfo", { flags = AS_CONFIGURED, kind = STREAM })
    local lookup = ffi.new("struct gw_lookup", { name = host, request = request })
    local list = ffi.new("struct gw_lookup *[1]", lookup)
    if C.getaddrinfo_a(NO_WAIT, list, 1, nil) ~= 0 then
        return nil, { host, request, lookup, list }
    end
    local waited = 0
    -- Whatever happens, the thread writes here until it is done: nothing of it may be collected before.
    while C.gai_error(lookup) == IN_PROGRESS do
        ngx.sleep(PAUSE)
        waited = waited + PAUSE
        if waited > LONGEST then
            ngx.log(ngx.ERR, "no answer about ", host, " for ", LONGEST, " s")
            waited = 0
        end
    end
    local found
    if C.gai_error(lookup) == 0 then
        found = texts(lookup.result)
        C.freeaddrinfo(lookup.result)
    end
    return found, { host, request, lookup, list }
end

--- Asks for a host's addresses, unless somebody did a moment ago.
function M.refresh(host)
    if M.is_address(host) or not shared:add("due:" .. host, true, AGAIN) then
        return
    end
    local found = look_up(host)
    if found and #found > 0 then
        shared:set("dns:" .. host, table.concat(found, " "))
    else
        shared:set("due:" .. host, true, AGAIN_AFTER_FAILURE)
    end
end

function M.is_address(host)
    return host:match("^[%d.]+$") ~= nil or host:find(":", 1, true) ~= nil
end

--- One of the host's addresses, another one for each try; nil while none is known.
function M.address(host, try)
    if M.is_address(host) then
        return host:find(":", 1, true) and "[" .. host .. "]" or host
    end
    local text = shared:get("dns:" .. host)
    if not text then
        return nil
    end
    local found = {}
    for word in text:gmatch("[^ ]+") do
        found[#found + 1] = word
    end
    return found[(try - 1) % #found + 1]
end

--- Waits for the first answer about a host, some seconds at most.
function M.await(host)
    for _ = 1, 150 do
        if M.address(host, 1) then
            return true
        end
        ngx.sleep(PAUSE)
    end
    return false
end

return M
