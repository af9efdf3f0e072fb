--- Finds the `model` of a form with files, however large they are: the field may come after them.

local ffi = require "ffi"
local mapped = require "gateway.mapped"

ffi.cdef [[
void *memmem(const void *text, size_t size, const void *part, size_t part_size);
]]

local C, cast, text_of = ffi.C, ffi.cast, ffi.string
local bytes = mapped.bytes

local LONGEST_HEAD, LONGEST_NAME, MOST_PARTS = 4096, 512, 64 -- bytes, bytes, parts
local BROKEN = "the body is not a form as its content-type says"

local function find(p, from, stop, part)
    local found = C.memmem(p + from, stop - from, part, #part)
    return found ~= nil and tonumber(cast(bytes, found) - p) or nil
end

-- The name of the field whose head this is; nil where it is not plain which one it is.
local function field(head)
    head = "\r\n" .. head
    local low = head:lower()
    local _, at = low:find("\r\ncontent%-disposition:%s*form%-data")
    if not at or low:find("\r\ncontent-disposition:", at, true) then
        return nil
    end
    local name
    while true do
        local key, value
        _, at, key = low:find("^%s*;%s*([%w_*-]+)%s*=%s*", at + 1)
        if not at then
            return name
        end
        local _, stop = head:find('^"[^"\\\r]*"', at + 1)
        if not stop then
            _, stop = head:find('^[^%s;"]+', at + 1)
        end
        if not stop then
            return key:find("^file") and name or nil
        end
        value = head:sub(at + 1, stop)
        if key:find("^name") then
            if name or key ~= "name" then
                return nil
            end
            name = value:match('^"(.*)"$') or value
        end
        at = stop
    end
end

--- What separates the parts, from the request's content type; nil when it does not say, or says it twice.
local function boundary(content_type)
    local low = content_type:lower()
    local _, at = low:find("^%s*multipart/form%-data%s*;%s*boundary=")
    -- Readers differ on which of two counts, so the engine might see other parts than we do.
    if not at or low:find("boundary", at, true) then
        return nil
    end
    local found = content_type:match('^"([%w\'()+_,./:=? -]+)"%s*$', at + 1) or content_type:match('^([%w\'()+_,./:=?-]+)%s*$', at + 1)
    return found and #found <= 70 and found or nil
end

--- The same four results as for a JSON body; the positions are of the bare value.
local function model(p, stop, separator)
    local delimiter = "\r\n--" .. separator
    -- The first one may stand at the very beginning, without a line before it.
    local opening = "--" .. separator
    if stop < #opening or text_of(p, #opening) ~= opening then
        return BROKEN
    end
    local at = #opening
    local name, first, last
    for _ = 1, MOST_PARTS do
        if stop - at >= 2 and p[at] == 45 and p[at + 1] == 45 then
            return nil, name, first, last
        end
        local head_end = find(p, at, math.min(stop, at + LONGEST_HEAD), "\r\n\r\n")
        if not head_end or head_end < at + 2 or p[at] ~= 13 then
            return BROKEN
        end
        local next_one = find(p, head_end + 2, stop, delimiter)
        if not next_one then
            return BROKEN
        end
        local label = field(text_of(p + at + 2, head_end - at - 2))
        if not label then
            return BROKEN
        end
        if label == "model" then
            if name then
                return "`model` is given twice"
            end
            first, last = head_end + 4, next_one - 1
            if last - first + 1 > LONGEST_NAME then
                return "`model` must be a name"
            end
            name = text_of(p + first, math.max(0, last - first + 1))
        end
        at = next_one + #delimiter
    end
    return "the form has more than " .. MOST_PARTS .. " parts"
end

return { boundary = boundary, model = model }
