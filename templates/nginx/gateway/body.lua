--- A request's body: read, looked at where it lies, and given another model's name without moving the rest.

local cjson = require "cjson.safe"
local ffi = require "ffi"
local file = require "gateway.file"
local mapped = require "gateway.mapped"
local multipart = require "gateway.multipart"
local scan = require "gateway.scan"

local req = ngx.req
local cast, bytes = ffi.cast, mapped.bytes

local M = {}

-- One body at a time is looked at, between two points where a request can wait: a string, or a file's bytes.
local text, path, shown, size

local function take()
    text = req.get_body_data()
    if text then
        return
    end
    path = req.get_body_file()
    if path then
        shown, size = file.show(path)
    end
    if not path or not shown then
        text, path = "", nil
    end
end

local function give_back()
    if path then
        file.forget(shown, size)
    end
    text, path, shown = nil, nil, nil
end

local function in_form(content_type)
    local separator = multipart.boundary(content_type)
    if not separator then
        return "the content-type names no boundary"
    elseif text then
        return multipart.model(cast(bytes, text), #text, separator)
    end
    return multipart.model(shown, size, separator)
end

--- Reads the body; returns nil, or status, code and message when it cannot be.
function M.read()
    -- Modules 0.10.25 and 0.10.26 know no bodies without a length over HTTP/2.
    if not pcall(req.read_body) then
        return 411, "length_required", "say content-length"
    end
end

--- Finds the model. Returns a problem in words, or nil; its name; first and last position of the value.
function M.model(content_type)
    take()
    local problem, name, first, last
    if content_type then
        problem, name, first, last = in_form(content_type)
    elseif text then
        problem, name, first, last = scan.model(text)
    else
        problem, name, first, last = mapped.model(shown, size)
    end
    give_back()
    return problem, name, first, last
end

--- The bytes that the conversation begins with.
function M.conversation()
    take()
    local found
    if text then
        found = mapped.conversation(cast(bytes, text), #text)
    else
        found = mapped.conversation(shown, size)
    end
    give_back()
    return found
end

local function rename_file(value, first, last, padded)
    local room = last - first + 1
    if padded and #value <= room then
        -- White space after a value changes nothing, and the other megabytes stay where they are.
        return file.overwrite(path, first, value .. (" "):rep(room - #value))
    end
    local new = path .. ".renamed"
    if not file.splice(new, shown, first, value, last + 1, size) then
        return false
    end
    req.set_body_file(new, true)
    return true
end

--- Puts another model's name between two positions. Returns whether that could be done.
function M.rename(name, first, last, is_form)
    local value = is_form and name or cjson.encode(name)
    take()
    local done = true
    if path then
        done = rename_file(value, first, last, not is_form)
    else
        req.set_body_data(text:sub(1, first) .. value .. text:sub(last + 2))
    end
    give_back()
    return done
end

return M
