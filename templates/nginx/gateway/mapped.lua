--- Finds the `model` of a JSON body that lies in a file: the same scan as scan.lua makes of a string, without that string.

local cjson = require "cjson.safe"
local ffi = require "ffi"

ffi.cdef [[
void *memchr(const void *text, int byte, size_t size);
]]

local C, cast, text_of = ffi.C, ffi.cast, ffi.string
local bytes = ffi.typeof("const uint8_t *")

local QUOTE, BACKSLASH, COLON, COMMA = 34, 92, 58, 44
local OBJECT, OBJECT_END, ARRAY, ARRAY_END = 123, 125, 91, 93

-- "model" with each letter written as \uXXXX, and its quotes.
local LONGEST_KEY = 5 * 6 + 2

local NOT_JSON = "the body is not a JSON object"

-- Positions count from 0; `stop` is the number of bytes, and also stands for "not found".

-- Position of the first byte from `at` on that is no white space.
local function skip_space(p, at, stop)
    while at < stop do
        local char = p[at]
        if char ~= 32 and char ~= 10 and char ~= 13 and char ~= 9 then
            return at
        end
        at = at + 1
    end
    return stop
end

-- Position of the quote that ends the string beginning at `at`.
local function string_end(p, at, stop)
    local from = at + 1
    while true do
        local found = C.memchr(p + from, QUOTE, stop - from)
        if found == nil then
            return stop
        end
        local quote = tonumber(cast(bytes, found) - p)
        local before = quote - 1
        while p[before] == BACKSLASH do
            before = before - 1
        end
        if (quote - before) % 2 == 1 then
            return quote
        end
        from = quote + 1
    end
end

-- Position of the bracket that ends the object or array beginning at `at`.
local function nested_end(p, at, stop)
    local depth = 0
    while at < stop do
        local char = p[at]
        if char == QUOTE then
            at = string_end(p, at, stop)
        elseif char == OBJECT or char == ARRAY then
            depth = depth + 1
        elseif char == OBJECT_END or char == ARRAY_END then
            depth = depth - 1
            if depth == 0 then
                return at
            end
        end
        at = at + 1
    end
    return stop
end

-- Position of the last byte of a number or a word.
local function scalar_end(p, at, stop)
    local first = at
    while at < stop do
        local char = p[at]
        -- Letters, digits, + - .
        if char < 43 or char == COMMA or char > 122 or (char > 57 and char < 65) or (char > 90 and char < 97) then
            break
        end
        at = at + 1
    end
    return at > first and at - 1 or stop
end

local function value_end(p, at, stop)
    local char = p[at]
    if char == QUOTE then
        return string_end(p, at, stop)
    elseif char == OBJECT or char == ARRAY then
        return nested_end(p, at, stop)
    end
    return scalar_end(p, at, stop)
end

-- The string between two quotes; nil when its escapes are wrong.
local function decode(p, first, last)
    local size = last - first - 1
    if C.memchr(p + first, BACKSLASH, size) == nil then
        return text_of(p + first + 1, size)
    end
    local decoded = cjson.decode("[" .. text_of(p + first, size + 2) .. "]")
    return decoded and decoded[1]
end

local function is_model(p, first, last)
    local size = last - first - 1
    if size == 5 then
        return p[first + 1] == 109 and p[first + 2] == 111 and p[first + 3] == 100 and p[first + 4] == 101
            and p[first + 5] == 108
    end
    return size > 5 and size < LONGEST_KEY and decode(p, first, last) == "model"
end

--- Calls `each(key's first, key's last, value's first, value's last)` for each member of the object that `p` holds.
--- Returns a problem in words, or nil.
local function members(p, stop, each)
    local at = skip_space(p, 0, stop)
    if at == stop or p[at] ~= OBJECT then
        return NOT_JSON
    end
    at = skip_space(p, at + 1, stop)
    local closed = at < stop and p[at] == OBJECT_END
    while not closed do
        if at == stop or p[at] ~= QUOTE then
            return NOT_JSON
        end
        local key_end = string_end(p, at, stop)
        local colon = skip_space(p, key_end + 1, stop)
        if colon >= stop or p[colon] ~= COLON then
            return NOT_JSON
        end
        local first = skip_space(p, colon + 1, stop)
        local last = first < stop and value_end(p, first, stop) or stop
        if last == stop then
            return NOT_JSON
        end
        each(at, key_end, first, last)
        at = skip_space(p, last + 1, stop)
        if at == stop then
            return NOT_JSON
        end
        closed = p[at] == OBJECT_END
        if not closed then
            if p[at] ~= COMMA then
                return NOT_JSON
            end
            at = skip_space(p, at + 1, stop)
        end
    end
    if skip_space(p, at + 1, stop) < stop then
        return NOT_JSON
    end
end

-- One scan at a time, so its findings need no closure.
local scanned, found_first, found_last, twice

local function note_model(key, key_end, first, last)
    if is_model(scanned, key, key_end) then
        twice = twice or found_first ~= nil
        found_first, found_last = first, last
    end
end

--- Finds the top-level `model` in `stop` bytes at `p`. Returns a problem in words, or nil; the model's name, nil when
--- there is none; and the positions of the first and the last byte of its value, quotes included.
local function model(p, stop)
    scanned, found_first, found_last, twice = p, nil, nil, false
    local problem = members(p, stop, note_model)
    scanned = nil
    if problem then
        return problem
    end
    if twice then
        -- Parsers differ on which one counts, so the engine might see another model than we do.
        return "`model` is given twice"
    end
    if not found_first then
        return nil
    end
    local name = p[found_first] == QUOTE and decode(p, found_first, found_last)
    if not name then
        return "`model` must be a string"
    end
    return nil, name, found_first, found_last
end

local BEGINNINGS = { messages = true, prompt = true, input = true, query = true }
-- Bytes of a conversation's beginning, and how many of its messages, that make out which one it is.
local LONGEST_BEGINNING, FIRST_MESSAGES = 4096, 2
local beginning

local function note_beginning(key, key_end, first, last)
    if not beginning and key_end - key < 10 and BEGINNINGS[text_of(scanned + key + 1, key_end - key - 1)] then
        local stop = last
        if scanned[first] == ARRAY then
            local at = first + 1
            for _ = 1, FIRST_MESSAGES do
                at = skip_space(scanned, at, last)
                stop = at < last and value_end(scanned, at, last) + 1 or stop
                at = skip_space(scanned, stop, last) + 1 -- the comma
            end
        end
        beginning = text_of(scanned + first, math.min(stop - first, LONGEST_BEGINNING))
    end
end

--- The bytes that a conversation begins with: its first two messages, or the prompt; "" when there are none.
local function conversation(p, stop)
    scanned, beginning = p, nil
    members(p, stop, note_beginning)
    scanned = nil
    return beginning or ""
end

return { model = model, conversation = conversation, bytes = bytes }
