// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable, Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";

/// Which models the market knows, each named by what it is: repository, file, and the SHA-256 of the weights, of the tokenizer and of
/// the chat template. Beside the name stands a commitment to the rows of its output head, for proofs that speak of them. Anyone proposes;
/// the owner approves, with the head that it looked at, and deprecates. What an approved model stands for never changes.
contract ModelRegistry is Ownable2Step {
    enum Status {
        Unknown,
        Proposed,
        Approved,
        Deprecated
    }

    /// The rows of the output head as integers, round(weight * 2^scale). All zero: none is known, and nothing can be proven about it.
    struct Head {
        bytes32 root; // of the tree over the rows' KZG points
        uint32 rows;
        uint16 width;
        uint8 scale;
    }

    struct Model {
        string repository;
        string file;
        bytes32 sha256Hash;
        bytes32 tokenizerHash; // 0: the file states none
        bytes32 templateHash; // 0: the file states none
        Head head;
        Status status;
    }

    uint256 public constant MAX_NAME_BYTES = 256;
    /// What the circuit `spot` takes.
    uint256 public constant MAX_WIDTH = 896;
    uint256 public constant MAX_SCALE = 30;

    mapping(bytes32 modelId => Model) private _models;
    bytes32[] private _ids;

    event ModelProposed(bytes32 indexed modelId, address indexed proposer, Model model);
    event ModelApproved(bytes32 indexed modelId);
    event HeadAdded(bytes32 indexed modelId, Head head);
    event ModelDeprecated(bytes32 indexed modelId);

    error BadName();
    error BadHash();
    /// Neither a whole head that the circuit takes nor none at all.
    error BadHead();
    /// The proposal has another head than the one that was looked at; or a head is there already, or none is given.
    error HeadDiffers();
    /// Approved once; a proposal can be made again until then.
    error ModelKnown();
    error ModelUnknown();
    error StatusUnchanged();
    error ZeroLimit();

    constructor(address owner) Ownable(owner) {}

    /// Until a model is approved, proposing it again replaces its head: whoever comes first with a wrong one keeps nobody out.
    function propose(
        string calldata repository,
        string calldata file,
        bytes32 sha256_,
        bytes32 tokenizer,
        bytes32 template,
        Head calldata head
    ) external returns (bytes32 id) {
        _checkName(repository);
        _checkName(file);
        if (sha256_ == 0) revert BadHash();
        _checkHead(head);
        id = idOf(repository, file, sha256_, tokenizer, template);
        Status status = _models[id].status;
        if (status > Status.Proposed) revert ModelKnown();
        if (status == Status.Unknown) _ids.push(id);
        Model memory proposed = Model(repository, file, sha256_, tokenizer, template, head, Status.Proposed);
        _models[id] = proposed;
        emit ModelProposed(id, msg.sender, proposed);
    }

    /// `head` is the one that the owner looked at: a proposal that was replaced meanwhile is not approved by mistake.
    function approve(bytes32 id, Head calldata head) external onlyOwner {
        _change(id, Status.Approved);
        if (keccak256(abi.encode(head)) != keccak256(abi.encode(_models[id].head))) revert HeadDiffers();
        emit ModelApproved(id);
    }

    /// A model that was approved without a head gets one, for ever.
    function addHead(bytes32 id, Head calldata head) external onlyOwner {
        _checkHead(head);
        if (_models[id].status < Status.Approved) revert ModelUnknown();
        if (head.root == 0 || _models[id].head.root != 0) revert HeadDiffers();
        _models[id].head = head;
        emit HeadAdded(id, head);
    }

    /// No new host can offer it; running jobs are not touched.
    function deprecate(bytes32 id) external onlyOwner {
        _change(id, Status.Deprecated);
        emit ModelDeprecated(id);
    }

    function _change(bytes32 id, Status to) private {
        Status from = _models[id].status;
        if (from == Status.Unknown) revert ModelUnknown();
        if (from == to) revert StatusUnchanged();
        _models[id].status = to;
    }

    function _checkName(string calldata name) private pure {
        if (bytes(name).length == 0 || bytes(name).length > MAX_NAME_BYTES) revert BadName();
    }

    function _checkHead(Head calldata head) private pure {
        bool none = head.root == 0 && head.rows == 0 && head.width == 0 && head.scale == 0;
        bool whole = head.root != 0 && head.rows != 0 && head.width != 0;
        if (!none && !(whole && head.width <= MAX_WIDTH && head.scale <= MAX_SCALE)) revert BadHead();
    }

    function idOf(
        string calldata repository,
        string calldata file,
        bytes32 sha256_,
        bytes32 tokenizer,
        bytes32 template
    ) public pure returns (bytes32) {
        return keccak256(abi.encode(repository, file, sha256_, tokenizer, template));
    }

    /// The head of an approved or deprecated model (running jobs of the latter go on); zeros for any other.
    function headOf(bytes32 id) external view returns (Head memory head) {
        if (_models[id].status > Status.Proposed) head = _models[id].head;
    }

    function isApproved(bytes32 id) external view returns (bool) {
        return _models[id].status == Status.Approved;
    }

    /// An empty model with status Unknown where there is none.
    function model(bytes32 id) external view returns (Model memory) {
        return _models[id];
    }

    /// Up to `limit` models in the order of their proposals; `next` is 0 at the end, else the cursor of the next page.
    function models(uint256 cursor, uint256 limit)
        external
        view
        returns (bytes32[] memory ids, Model[] memory page, uint256 next)
    {
        if (limit == 0) revert ZeroLimit();
        uint256 total = _ids.length;
        uint256 start = cursor < total ? cursor : total;
        uint256 count = total - start < limit ? total - start : limit;
        ids = new bytes32[](count);
        page = new Model[](count);
        for (uint256 i; i < count; ++i) {
            ids[i] = _ids[start + i];
            page[i] = _models[ids[i]];
        }
        next = start + count < total ? start + count : 0;
    }
}
