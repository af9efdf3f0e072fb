--- How much each thing is in use: counted for all nginx workers together, and given back when one of them is killed.

local ffi = require "ffi"

ffi.cdef "int kill(int pid, int sig);"

-- flight:KEY    uses of a replica, of a client's key, of a model's queue
-- held:PID:KEY  how many of them belong to one nginx worker
local shared = ngx.shared.gateway

local pid, flight, held = 0, {}, {}

-- The names are made once: a string that is joined for each request is hashed for each request.
local function names(of, prefix)
    return setmetatable(of, {
        __index = function(self, key)
            local name = prefix .. key
            rawset(self, key, name)
            return name
        end,
    })
end

local M = {}

function M.start()
    pid = ngx.worker.pid()
    flight, held = names({}, "flight:"), names({}, "held:" .. pid .. ":")
end

--- Counts one use more; returns how many there are.
function M.take(key)
    shared:incr(held[key], 1, 0)
    return shared:incr(flight[key], 1, 0)
end

function M.give_back(key)
    shared:incr(held[key], -1, 0)
    shared:incr(flight[key], -1, 0)
end

function M.uses(key)
    return shared:get(flight[key]) or 0
end

--- Gives back what killed nginx workers held. Costs a look at every counter, so only where one died.
function M.sweep()
    for _, name in ipairs(shared:get_keys(0)) do
        local owner, key = name:match("^held:(%d+):(.*)$")
        if owner and ffi.C.kill(tonumber(owner), 0) ~= 0 then
            shared:incr("flight:" .. key, -(shared:get(name) or 0), 0)
            shared:delete(name)
        end
    end
end

return M
