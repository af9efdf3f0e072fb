--- Finds the `model` of a JSON request body without decoding the rest of it.
-- For bodies in memory, which are short: here the string library is faster than pointers, whose loops are not compiled.
-- A pattern costs several hundred instructions wherever it is used, a byte about ten: what is common is seen by its bytes.

local cjson = require "cjson.safe"

local byte, find, sub = string.byte, string.find, string.sub

local SPACE, QUOTE, BACKSLASH, COLON, COMMA = byte(' "\\:,', 1, 5)
local OBJECT, OBJECT_END, ARRAY, ARRAY_END = byte("{}[]", 1, 4)

-- "model" with each letter written as \uXXXX, and its quotes.
local LONGEST_KEY = 5 * 6 + 2

local NOT_JSON = "the body is not a JSON object"

-- Position of the first byte from `at` on that is no white space.
local function skip_space(text, at)
    local char = byte(text, at)
    if char and char > SPACE then
        return at
    end
    return find(text, "[^ \t\r\n]", at)
end

-- Position of the quote that ends a string, from one on that stands behind a backslash.
local function escaped_end(text, at)
    while at do
        local before = at - 1
        while byte(text, before) == BACKSLASH do
            before = before - 1
        end
        if (at - before) % 2 == 1 then
            return at
        end
        at = find(text, '"', at + 1, true)
    end
end

-- Position of the quote that ends the string beginning at `at`.
local function string_end(text, at)
    at = find(text, '"', at + 1, true)
    if at and byte(text, at - 1) == BACKSLASH then
        return escaped_end(text, at)
    end
    return at
end

-- Position of the next quote or bracket.
local function next_mark(text, at)
    local char = byte(text, at)
    if char == COLON or char == COMMA then
        at = at + 1
        char = byte(text, at)
    end
    if char == QUOTE or char == OBJECT or char == OBJECT_END or char == ARRAY or char == ARRAY_END then
        return at
    end
    return find(text, '["{}%[%]]', at)
end

-- Position of the bracket that ends the object or array beginning at `at`.
local function nested_end(text, at)
    local depth = 0
    while at do
        local char = byte(text, at)
        if char == QUOTE then
            at = string_end(text, at)
            if not at then
                return nil
            end
        elseif char == OBJECT or char == ARRAY then
            depth = depth + 1
        else
            depth = depth - 1
            if depth == 0 then
                return at
            end
        end
        at = next_mark(text, at + 1)
    end
end

local function value_end(text, at)
    local char = byte(text, at)
    if char == QUOTE then
        return string_end(text, at)
    elseif char == OBJECT or char == ARRAY then
        return nested_end(text, at)
    end
    local _, last = find(text, "^[%w+.-]+", at)
    return last
end

-- The string between two quotes; nil when its escapes are wrong.
local function decode(text, first, last)
    local raw = sub(text, first, last)
    if not find(raw, "\\", 1, true) then
        return sub(raw, 2, -2)
    end
    local decoded = cjson.decode("[" .. raw .. "]")
    return decoded and decoded[1]
end

local M1, M2, M3, M4, M5 = byte("model", 1, 5)

local function is_model(text, first, last)
    local size = last - first - 1
    if size == 5 then
        local one, two, three, four, five = byte(text, first + 1, last - 1)
        return one == M1 and two == M2 and three == M3 and four == M4 and five == M5
    end
    return size > 5 and size < LONGEST_KEY and decode(text, first, last) == "model"
end

-- One `"key": value`. Returns whether the key is `model`, and where the value begins and ends; nil when malformed.
local function member(text, at)
    if not at or byte(text, at) ~= QUOTE then
        return nil
    end
    local key_end = string_end(text, at)
    local colon = key_end and skip_space(text, key_end + 1)
    local first = colon and byte(text, colon) == COLON and skip_space(text, colon + 1)
    local last = first and value_end(text, first)
    if not last then
        return nil
    end
    return is_model(text, at, key_end), first, last
end

--- Finds the top-level `model`. Returns a problem in words, or nil; the model's name, nil when there is none; and the
--- positions of the first and the last byte of its value, quotes included, counted from 0.
local function model(text)
    local at = skip_space(text, 1)
    if not at or byte(text, at) ~= OBJECT then
        return NOT_JSON
    end
    local first, last
    at = skip_space(text, at + 1)
    local closed = at and byte(text, at) == OBJECT_END
    while not closed do
        local found, value, stop = member(text, at)
        if found == nil then
            return NOT_JSON
        end
        if found then
            if first then
                -- Parsers differ on which one counts, so the engine might see another model than we do.
                return "`model` is given twice"
            end
            first, last = value, stop
        end
        at = skip_space(text, stop + 1)
        local char = at and byte(text, at)
        closed = char == OBJECT_END
        if not closed then
            if char ~= COMMA then
                return NOT_JSON
            end
            at = skip_space(text, at + 1)
        end
    end
    if skip_space(text, at + 1) then
        return NOT_JSON
    end
    if not first then
        return nil
    end
    local name = byte(text, first) == QUOTE and decode(text, first, last)
    if not name then
        return "`model` must be a string"
    end
    return nil, name, first - 1, last - 1
end

return { model = model }
