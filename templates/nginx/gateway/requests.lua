--- What is known of the requests in progress. Not in ngx.ctx, which an error page clears before a request is over.

local ffi = require "ffi"
local get_request = require("resty.core.base").get_request

local cast = ffi.cast
local number = ffi.typeof "uintptr_t"

local open = {}

local M = {}

--- Begins the one of this request.
function M.new()
    local one = {
        -- Model that was asked for, the replica that works on it, and whose key it came with.
        model = nil, replica = nil, key = nil,
        -- The replica that is asked first, or those that may be, and how many were tried.
        first = nil, candidates = nil, tried = nil, try = 0,
        -- Seconds until the first byte; the buffer with the answer's end.
        first_byte = nil, tail = nil,
        path = nil, entry = nil, method = nil,
    }
    open[tonumber(cast(number, get_request()))] = one
    return one
end

function M.get()
    return open[tonumber(cast(number, get_request()))]
end

--- Ends it.
function M.drop()
    local at = tonumber(cast(number, get_request()))
    local one = open[at]
    open[at] = nil
    return one
end

return M
